"""``pocketiqa adapt``: an exported student follows one's own ratings; its heads first, then its last blocks.

The heads are fitted in seconds on features that are computed once (``map_head_fitting``), in five folds of whole scenes
and to all ratings. Then the last blocks go on from there in the training loop of all students, once a fold and once for
all ratings, each with a part of its own that ends it early. What does best on other folds is written, if it does better
than the student and its calibration do (``adaptation``).

All of it is in a folder beside the file until that is written: the same command goes on after a kill.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.data.examples import LabelTable, Source
from distill.data.ratings import left_out, rating_source
from distill.data.split import join_groups
from distill.evaluation.benchmarks.registry import load_benchmark, rated_spec
from distill.recipe.training import (
    ImageSettings,
    LossSettings,
    OptimizerSettings,
    SplitSettings,
    StudentSettings,
    TrainConfig,
)
from distill.stages.adaptation import (
    ADAPTED,
    BLOCKS,
    CALIBRATED,
    UNADAPTED,
    NotBetterError,
    adapted_card,
    best_candidate,
    check_better,
    chosen_scores,
    chosen_without,
    measure,
)
from distill.stages.adapted_student import StartStudent, shared_parts, trained_parts
from distill.stages.map_head_fitting import PENALTIES, CellFeatures, Heads, fit_heads, scores_of
from distill.training.student import configured_student, train
from pseudo_labels import outputs
from pseudo_labels.defaults import SEED
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.files import checksummed_json, digest_of, read_record, write_atomic
from pseudo_labels.images import load
from pseudo_labels.metrics.draws import folds_of
from pseudo_labels.outputs import NewFile, new_file
from pseudo_labels.parallel import Progress
from pseudo_labels.photos import bundled_photographs
from students.base import StudentOutput, score_images
from students.config import StudentConfig
from students.export import ExportReport, export_onnx
from students.meaning.own_scale import FOLDS, fit_isotonic, held_out_ratings
from students.model import EXPORTED, PocketStudent
from students.storage import open_student

FloatArray = NDArray[np.float64]
Warn = Callable[[str], None]

MIN_RATINGS, MAX_RATINGS, MIN_SCENES = 50, 5000, 10
KIND = "adaptation"
_ALL = FOLDS
"""Number of the fit to all ratings, behind those of the folds."""
_HEADS, _POOL, _PIXELS, _START = "heads.json", "ratings", "pixels", "start.onnx"
_BATCH, _PASSES, _LEAST_STEPS, _MOST_STEPS, _VALIDATIONS, _PATIENCE = 16, 6, 40, 300, 8, 3
_LEARNING_RATE, _BACKBONE_RATE, _WARMUP_STEPS, _EMA_DECAY, _VALIDATION = 5e-4, 0.3, 5, 0.95, 0.2
# Of the photographs that a head is fitted to: what one fit costs of the bar, in photographs that are shown once.
_FIT_COST = 0.25
_PARITY_IMAGES = 3


@dataclass(frozen=True)
class Adapted:
    """A written file.

    Attributes:
        report: of the export.
        dropped: what the file no longer holds, a sentence each.
    """

    report: ExportReport
    dropped: tuple[str, ...]

    @property
    def record(self) -> dict[str, Any]:
        """What it learned from and how it does, as its contract says."""
        return self.report.contract.metrics["adaptation"]


def adapt(
    model: str | None,
    ratings: str,
    out: Path,
    *,
    scale: str | None = None,
    heads_only: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    warn: Warn | None = None,
) -> Adapted:
    """Adapt a student and write it, with a card beside it; or go on where a killed run of the same command was.

    Args:
        model: exported file in float, name, or training folder.
        ratings: ``NAME:FOLDER`` of a rated set, whose train part is taken, or a CSV file.
        out: .onnx file to write; the card has its name with ``.md``.
        scale: of a CSV file, such as ``1:5``.
        heads_only: leave out the training of the last blocks, which takes most of the time.
        overwrite: replace existing files, and work that was begun with other settings.
        progress: called with units of work done and in total.
        warn: called with what a person should know.

    Raises:
        NotBetterError: it does not rank other photographs better than the student and its calibration do.
        PocketiqaError: a student that cannot be adapted, or too few or too many ratings.
        InterruptedRunError: SIGTERM or SIGINT; the same command goes on.
        OutputConflictError: ``out`` exists, or was begun with other settings.
    """
    if out.suffix != EXPORTED:
        raise PocketiqaError(f"--out is {out}, but the file to write ends in {EXPORTED}")
    card = out.with_suffix(".md")
    folder = out.with_name(f"{out.name}.work")
    try:
        with new_file(out, overwrite=overwrite) as file, new_file(card, overwrite=overwrite) as card_file:
            spec = rated_spec(ratings, scale)
            start = StartStudent.open(model)
            with outputs.exclusively(folder):
                _claim(folder, _determining(start, spec, heads_only), overwrite)
                work = _Work(start, spec, folder, heads_only=heads_only, progress=progress, warn=warn)
                adapted = work.run(file)
            card_file.write(adapted_card(adapted.report.contract, adapted.report.digest, adapted.dropped).encode())
    except NotBetterError:
        # The same ratings give the same answer: there is nothing to go on with.
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return adapted


def _determining(start: StartStudent, spec: str, heads_only: bool) -> dict[str, Any]:
    rows = load_benchmark(spec).rows
    stated = [[row.id, row.group, row.split, str(row.path), row.score] for row in rows]
    return {"model": start.digest, "ratings": digest_of(stated), "heads_only": heads_only, "folds": FOLDS}


def _claim(folder: Path, spec: dict[str, Any], overwrite: bool) -> None:
    try:
        outputs.claim(folder, KIND, spec)
    except OutputConflictError:
        if not overwrite:
            raise
        outputs.claim(folder, KIND, spec, overwrite=True)


@dataclass(frozen=True)
class _Rated:
    """The rated photographs.

    Attributes:
        source: pool and ratings.
        ids: of the photographs.
        ratings: [N] in [0, 1].
        groups: scene of each.
        folds: [N], number of the fold.
    """

    source: Source
    ids: list[str]
    ratings: FloatArray
    groups: list[str]
    folds: NDArray[np.int64]

    @classmethod
    def of(cls, source: Source) -> "_Rated":
        """Photographs in the order of the pool.

        Raises:
            PocketiqaError: too few or too many, too few scenes, or all ratings are alike.
        """
        table = source.labels
        assert isinstance(table, LabelTable), "ratings are one"
        rating_of = dict(zip(table.ids, table.scores.tolist(), strict=True))
        group_of = join_groups(source.pool.ok())
        ids = [ref.id for ref in source.pool.ok() if ref.id in rating_of]
        groups, ratings = [group_of[id] for id in ids], np.array([rating_of[id] for id in ids], np.float64)
        scenes = len(set(groups))
        if not (MIN_RATINGS <= len(ids) <= MAX_RATINGS) or scenes < MIN_SCENES:
            more = "" if len(ids) <= MAX_RATINGS else "; of more, train a student by a recipe with student.init"
            raise PocketiqaError(
                f"{len(ids)} rated photographs of {scenes} scenes can be used, but {MIN_RATINGS} to {MAX_RATINGS} of "
                f"at least {MIN_SCENES} scenes are needed (photographs that look alike are one scene){more}"
            )
        if np.ptp(ratings) == 0:
            raise PocketiqaError(f"all {len(ids)} ratings are alike: nothing can be learned from them")
        return cls(source, ids, ratings, groups, folds_of(groups, FOLDS, SEED))

    def outside(self, fold: int) -> NDArray[np.bool_]:
        """[N], what the fit of a fold sees: the other folds; of ``_ALL``, everything."""
        return self.folds != fold


class _Work:
    """The steps of one call, over the folder that keeps them."""

    def __init__(
        self, start: StartStudent, spec: str, folder: Path, *, heads_only: bool, progress: Progress | None,
        warn: Warn | None,
    ):  # fmt: skip
        self._start, self._folder, self._heads_only = start, folder, heads_only
        self._report, self._warn = progress or (lambda done, total: None), warn or (lambda words: None)
        source = rating_source(spec, None, folder / _POOL)
        for sentence in left_out([source]):
            self._warn(sentence)
        self._rated = _Rated.of(source)
        number = len(self._rated.ids)
        self._steps = int(np.clip(-(-number * _PASSES // _BATCH), _LEAST_STEPS, _MOST_STEPS))
        self._frozen = shared_parts(start.student)
        self._fit_cost = max(1, round(_FIT_COST * number))
        fits = FOLDS + 1
        self._total = number + fits * self._fit_cost + (0 if heads_only else fits * self._steps)

    def run(self, file: NewFile) -> Adapted:
        """Fit, choose, measure, write.

        Raises:
            NotBetterError: see ``adapt``.
        """
        rated = self._rated
        unadapted, heads, held_out = self._heads()
        if not self._heads_only:
            held_out[BLOCKS] = self._blocks_held_out(heads, held_out)
        chosen = best_candidate(held_out, rated.ratings)
        scores = {
            UNADAPTED: unadapted,
            CALIBRATED: held_out_ratings(fit_isotonic, unadapted, rated.ratings, rated.folds),
            ADAPTED: chosen_scores(held_out, rated.ratings, rated.folds),
        }
        measured = measure(scores, rated.ratings, rated.folds, rated.groups)
        check_better(measured)
        if chosen == BLOCKS:
            # The heads to begin with are those that did best, as in each fold.
            plain = {name: own for name, own in held_out.items() if name != BLOCKS}
            student = self._trained(_ALL, heads[_ALL][best_candidate(plain, rated.ratings)])
        else:
            student = self._start.with_heads(heads[_ALL][chosen])
        self._report(self._total, self._total)
        return self._write(student, self._record(chosen, measured), file)

    def _record(self, chosen: str, measured: Mapping[str, Any]) -> dict[str, Any]:
        rated, start = self._rated, self._start
        about = rated.source.labels.about if isinstance(rated.source.labels, LabelTable) else {}
        if chosen == BLOCKS:
            trained = {"trained": BLOCKS, "parts": trained_parts(start.student, self._frozen)}
        else:
            trained = {"trained": "heads", "penalty": float(chosen)}
        return {
            "source": {"name": start.contract.name, "sha256": start.digest},
            "ratings": {
                "name": rated.source.name,
                "images": len(rated.ids),
                "scenes": len(set(rated.groups)),
                "digest": rated.source.labels.digest,
                "scale": str(about.get("scale", "")),
            },
            "folds": FOLDS,
            **trained,
            **measured,
        }

    def _write(self, student: PocketStudent, record: dict[str, Any], file: NewFile) -> Adapted:
        start, ratings = self._start, record["ratings"]
        table = self._rated.source.labels
        licence = table.about.get("licence", "") if isinstance(table, LabelTable) else ""
        # Numbered as a recipe's sources are, so that the data set is recognised in a warning.
        data = {
            "name": f"{len(start.contract.data)}-{ratings['name']}",
            "digest": ratings["digest"],
            "licence": licence,
        }
        contract = replace(
            start.contract,
            name=Path(file.path or "adapted").stem,
            student=student.config.as_dict(),
            scale=f"ratings of {ratings['name']}, {ratings['scale']}, mapped to 0 to 1",
            calibration=None,
            data=(*start.contract.data, data),
            parameters=start.contract.parameters - (start.contract.regions or {"parameters": 0})["parameters"],
            metrics={"adaptation": record},
            look=None,
            pairs=None,
            types=None,
            regions=None,
        )
        images = [load(path) for path in list(bundled_photographs().values())[:_PARITY_IMAGES]]
        return Adapted(export_onnx(student, contract, file, images=images, half=start.half), tuple(start.dropped))

    def _heads(self) -> tuple[FloatArray, list[dict[str, Heads]], dict[str, FloatArray]]:
        """Scores as they are [N]; heads by fit and penalty; scores of held-out photographs [N] by penalty."""
        path = self._folder / _HEADS
        names = [f"{penalty:g}" for penalty in PENALTIES]
        if not path.exists():
            write_atomic(path, checksummed_json(self._fitted_heads(names)))
        record = read_record(path, what="heads")
        heads = [{name: Heads.from_dict(own) for name, own in one.items()} for one in record["heads"]]
        return np.array(record["unadapted"]), heads, {name: np.array(record["held_out"][name]) for name in names}

    def _fitted_heads(self, names: Sequence[str]) -> dict[str, Any]:
        rated, number = self._rated, len(self._rated.ids)
        features, start = self._features(), self._start.heads
        held_out = np.empty((len(names), number))
        heads = []
        for fit in range(FOLDS + 1):
            keep = rated.outside(fit)
            fitted = fit_heads(features.take(keep), rated.ratings[keep], start)
            heads.append({name: own.as_dict() for name, own in zip(names, fitted, strict=True)})
            if fit != _ALL:
                rest = features.take(~keep)
                held_out[:, ~keep] = [scores_of(rest, own) for own in fitted]
            self._report(number + (fit + 1) * self._fit_cost, self._total)
        return {
            "unadapted": scores_of(features, start).tolist(),
            "heads": heads,
            "held_out": dict(zip(names, held_out.tolist(), strict=True)),
        }

    def _features(self) -> CellFeatures:
        maps = []
        for output in self._shown(self._start.student, np.ones(len(self._rated.ids), bool)):
            maps.append(output.features.flatten(1).T.numpy().astype(np.float16))
            self._report(len(maps), self._total)
        return CellFeatures.of(maps)

    def _shown(self, student: PocketStudent, keep: NDArray[np.bool_]) -> Iterator[StudentOutput]:
        """What a student gives of each photograph, one after the other."""
        pool = self._rated.source.pool
        for place in np.flatnonzero(keep):
            yield score_images(student, [pool.load(pool.by_id(self._rated.ids[place]))])[0]

    def _blocks_held_out(self, heads: Sequence[Mapping[str, Heads]], held_out: Mapping[str, FloatArray]) -> FloatArray:
        rated, scores = self._rated, np.empty(len(self._rated.ids))
        for fold in range(FOLDS):
            name = chosen_without(held_out, rated.ratings, rated.folds, fold)
            student, own = self._trained(fold, heads[fold][name]), ~rated.outside(fold)
            scores[own] = [float(output.score) for output in self._shown(student, own)]
        return scores

    def _trained(self, fit: int, heads: Heads) -> PocketStudent:
        """The student of a fold, or of ``_ALL``, after the training of its last blocks."""
        folder, rated = self._folder / f"fit-{fit}", self._rated
        start = folder / _START
        if not start.exists():
            folder.mkdir(exist_ok=True)
            images = [load(next(iter(bundled_photographs().values())))]
            plain = replace(self._start.contract, student=self._start.student.config.as_dict(), look=None, pairs=None,
                            types=None,
                            regions=None, calibration=None)  # fmt: skip
            export_onnx(self._start.with_heads(heads), plain, start, images=images)
        keep = frozenset(id for id, own in zip(rated.ids, rated.outside(fit), strict=True) if own)
        before = len(rated.ids) + (FOLDS + 1) * self._fit_cost + fit * self._steps
        result = train(
            self._settings(start), [replace(rated.source, only=keep)], folder / "run",
            cache=self._folder / _PIXELS,
            progress=lambda done, _: self._report(before + done, self._total),
            # The number of threads that is measured is said once, and not for each fit.
            warn=self._warn if fit == 0 else None,
        )  # fmt: skip
        student = open_student(result.student_folder).student
        assert isinstance(student, PocketStudent), "as the one that it began as"
        return student.eval()

    def _settings(self, start: Path) -> TrainConfig:
        config = self._start.student.config
        every = max(1, self._steps // _VALIDATIONS)
        free = self._frozen != ("backbone",)
        return TrainConfig(
            student=_student_settings(config, start, self._frozen),
            steps=self._steps,
            batch_size=_BATCH,
            patience=_PATIENCE,
            validate_every_steps=every,
            checkpoint_every_steps=every,
            split=SplitSettings(validation=_VALIDATION),
            optimizer=OptimizerSettings(
                learning_rate=_LEARNING_RATE, warmup_steps=_WARMUP_STEPS,
                learning_rate_multipliers={"student.backbone.": _BACKBONE_RATE} if free else {},
            ),
            # The statistics of few photographs would be noise, and an exported student has none of its own.
            freeze_batch_norm=True,
            ema_decay=_EMA_DECAY,
            images=ImageSettings(crop_size=None),
            losses=LossSettings(),
            tracker="none",
        )  # fmt: skip


def _student_settings(config: StudentConfig, start: Path, frozen: tuple[str, ...]) -> StudentSettings:
    settings = StudentSettings(
        name=config.backbone, init=start, freeze=frozen, max_side=config.preprocess.max_side, levels=config.levels,
        map_stride=config.map_stride, head_width=config.head_width, mean=config.mean, std=config.std,
        pad_type=config.pad_type, last_stage=config.last_stage,
    )  # fmt: skip
    if configured_student(settings) != config:
        raise PocketiqaError(
            f"the student's resize to a shorter side of {config.preprocess.min_side} cannot be set in a training: "
            "adapt its heads alone with --heads-only"
        )
    return settings
