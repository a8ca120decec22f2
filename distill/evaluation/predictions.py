"""One way to predict scores with every kind of model: exported student, student folder, label store, teacher.

Every model sees the same decoded pixels (``pseudo_labels.images``), and every image gets a row: a score, or a status
with the reason why it has none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.evaluation.samples import Sample
from pseudo_labels.crops import FULL
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import sha256_bytes
from pseudo_labels.images import DEFAULT_LIMITS, DecodeLimits, ImageError, decode
from pseudo_labels.outputs import MANIFEST, read_manifest
from pseudo_labels.parallel import Progress, in_order
from pseudo_labels.records import Status
from pseudo_labels.remote import Address, location
from students.paths import CHECKPOINT_SUFFIXES, find_student
from students.shipped import ALL_NAMES, model_path

FloatArray = NDArray[np.float64]
Pixels = tuple[np.ndarray, np.ndarray | None]
"""An image and, where the model compares, its clean reference; uint8 [H, W, 3] each."""

# Score, status and reason of one image.
_Row = tuple[float, Status, str]

# So many decoded images may wait for the model, for each worker: this bounds the memory.
_AHEAD_PER_WORKER = 2


def pixels_of(sample: Sample, needs_reference: bool, limits: DecodeLimits) -> Pixels | ImageError:
    """The decoded sample, with its reference if that is needed; or the error of either."""
    try:
        rgb = decode(sample.read(), limits)
        if not needs_reference:
            return rgb, None
        if sample.reference is None:
            return ImageError(Status.NO_REFERENCE, "the model compares with a clean reference, and there is none")
        try:
            return rgb, decode(sample.reference(), limits)
        except ImageError as error:
            return ImageError(Status.NO_REFERENCE, f"the clean reference cannot be used: {error.reason}")
    except ImageError as error:
        return error


def decoded_ahead(
    samples: Sequence[Sample], needs_reference: bool, limits: DecodeLimits, workers: int
) -> Iterator[Pixels | ImageError]:
    """``pixels_of`` each sample, in order, decoded in threads; memory does not grow with the number of samples."""
    return in_order(
        lambda sample: pixels_of(sample, needs_reference, limits),
        samples,
        workers if workers > 1 else 0,  # one worker decodes in the caller's thread
        ahead=workers * _AHEAD_PER_WORKER,
    )


@dataclass(frozen=True)
class Predictor:
    """A model that is ready to score decoded images one by one.

    Attributes:
        name: name of the model in tables.
        about: facts on the model, as JSON values.
        score: gives the score in [0, 1], 1 best, of uint8 [H, W, 3] RGB and its clean reference (None unless
            ``needs_reference``).
        needs_reference: whether the model compares with a clean reference.
    """

    name: str
    about: dict[str, Any]
    score: Callable[[np.ndarray, np.ndarray | None], float]
    needs_reference: bool = False


def _onnx_predictor(path: Path, threads: int) -> Predictor:
    from students.runtime import Scorer

    scorer = Scorer(path, threads=threads)
    about = {"contract": scorer.contract.as_dict(), "digest": scorer.digest, "file_bytes": path.stat().st_size}
    return Predictor(scorer.contract.name, about, lambda rgb, _: scorer.score(rgb).score)


def _student_predictor(path: Path) -> Predictor:
    # Imported here: only student folders and teachers need torch, which takes seconds to load.
    from students.base import score_images
    from students.storage import open_student

    opened = open_student(path)
    about = {"config": opened.student.config.as_dict(), "about": opened.about, "digest": opened.digest}
    return Predictor(opened.name, about, lambda rgb, _: float(score_images(opened.student, [rgb])[0].score))


def _teacher_predictor(name: str, options: Mapping[str, Any], device: str) -> Predictor:
    import torch

    from teachers.base import check_output
    from teachers.launch import current_launch, is_out_of_memory
    from teachers.registry import build_teacher

    teacher = build_teacher(name, **options)
    teacher.to(current_launch(device).device)

    # One image in each call: those of a benchmark differ in size, and no batch holds two sizes.
    def score(rgb: np.ndarray, reference: np.ndarray | None) -> float:
        try:
            with torch.inference_mode():
                output = teacher([teacher.preprocess(rgb, reference)])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            size = f"{rgb.shape[1]}x{rgb.shape[0]}"
            raise PocketiqaError(
                f"out of memory on an image of {size} pixels: give the teacher a smaller input by its options"
            ) from error
        return float(check_output(output, 1, (), name).score[0])

    return Predictor(teacher.stamp.name, {"stamp": teacher.stamp.as_dict()}, score, teacher.needs_reference)


def kind_of(model: str | Path) -> str:
    """Kind of model that a name or path stands for: ``onnx``, ``student``, ``labels`` or ``teacher``.

    Raises:
        PocketiqaError: none of these.
    """
    address = location(model)
    if isinstance(address, Address):
        return read_manifest(address, "labels").kind
    # Files and folders first: what exists wins over a teacher of the same name.
    path = model_path(model)
    if path.is_file() and path.suffix == ".onnx":
        return "onnx"
    if find_student(path) is not None:
        return "student"
    if (path / MANIFEST).is_file() and read_manifest(path).kind == "labels":
        return "labels"
    from teachers.fitted_folder import is_fitted_folder
    from teachers.registry import TEACHERS

    # A text with a colon that is no path names a teacher of the caller's own, as package.module:function.
    if str(model) in TEACHERS or is_fitted_folder(str(model)) or (":" in str(model) and not path.exists()):
        return "teacher"
    raise PocketiqaError(
        f"{str(model)!r} is no model: give an exported .onnx file, one that comes along ({', '.join(ALL_NAMES)}), a "
        f"student or training folder, the checkpoint of DP-IQA's published student "
        f"({', '.join(CHECKPOINT_SUFFIXES)}), a label store, the folder of a fitted teacher, or a teacher "
        f"({', '.join(TEACHERS)}, or your own as package.module:function)"
    )


def check_model(model: str | Path, options: Mapping[str, Any] | None = None) -> None:
    """Refuse in a moment a model that cannot be opened here, as far as that can be known before.

    Arguments are those of ``open_predictor``.

    Raises:
        PocketiqaError: no such model, or a teacher with wrong options or that lacks something on this machine.
    """
    if kind_of(model) == "teacher":
        from teachers.registry import check_teacher_options

        check_teacher_options(str(model), options or {})


def open_predictor(
    model: str | Path, *, options: Mapping[str, Any] | None = None, device: str = "auto", threads: int = 1
) -> Predictor:
    """Open an exported student, any that ``students.storage`` knows, or a teacher (a label store scores nothing new).

    Args:
        model: path or name.
        options: options of a teacher.
        device: device of a teacher, see ``teachers.launch.current_launch``.
        threads: number of ONNX Runtime threads.

    Raises:
        PocketiqaError: ``model`` is none of these, or cannot be opened.
    """
    kind = kind_of(model)
    if kind == "onnx":
        return _onnx_predictor(model_path(model), threads)
    if kind == "student":
        return _student_predictor(Path(model))
    if kind == "teacher":
        return _teacher_predictor(str(model), options or {}, device)
    raise PocketiqaError(f"{model} is a label store: it holds scores of its own pool and cannot score other images")


@dataclass(frozen=True)
class Predictions:
    """Scores of one model for a list of images.

    Attributes:
        name: name of the model in tables.
        kind: ``onnx``, ``student``, ``labels`` or ``teacher``.
        ids: distinct image ids.
        scores: float64 [N] in [0, 1], 1 best; NaN where there is none.
        statuses: whether each image was scored, and what went wrong otherwise.
        reasons: explanation for people; empty where the status is ``ok``.
        about: facts on the model, as JSON values.
    """

    name: str
    kind: str
    ids: tuple[str, ...]
    scores: FloatArray
    statuses: tuple[Status, ...]
    reasons: tuple[str, ...]
    about: dict[str, Any] = field(default_factory=dict)

    def aligned(self, ids: Sequence[str]) -> "Predictions":
        """The predictions for ``ids``, in that order; an image that was not predicted is ``missing``."""
        index_of = {id: index for index, id in enumerate(self.ids)}
        indices = [index_of.get(id) for id in ids]
        absent = Status.MISSING, "the model was not run on this image"
        return Predictions(
            name=self.name,
            kind=self.kind,
            ids=tuple(ids),
            scores=np.array([np.nan if index is None else self.scores[index] for index in indices], np.float64),
            statuses=tuple(absent[0] if index is None else self.statuses[index] for index in indices),
            reasons=tuple(absent[1] if index is None else self.reasons[index] for index in indices),
            about=self.about,
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON form: a missing score is null."""
        return {
            "name": self.name,
            "kind": self.kind,
            "about": self.about,
            "ids": list(self.ids),
            # Null, as JSON has no NaN and ``canonical_json`` refuses it.
            "scores": [None if np.isnan(score) else float(score) for score in self.scores],
            "statuses": [status.value for status in self.statuses],
            "reasons": list(self.reasons),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Predictions":
        """Inverse of ``as_dict``."""
        return cls(
            name=record["name"],
            kind=record["kind"],
            ids=tuple(record["ids"]),
            scores=np.array([np.nan if score is None else score for score in record["scores"]], np.float64),
            statuses=tuple(Status(status) for status in record["statuses"]),
            reasons=tuple(record["reasons"]),
            about=dict(record["about"]),
        )


def predict(
    model: str | Path,
    samples: Sequence[Sample],
    *,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int = 1,
    workers: int = 1,
    limits: DecodeLimits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Predictions:
    """Score images with any kind of model.

    Args:
        model: path of an .onnx file, a student or training folder, a label store; or the name of a teacher.
        samples: images with distinct ids.
        name: name in tables; the model's own name if None.
        options: options of a teacher.
        device: device of a teacher: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ...
        threads: number of ONNX Runtime threads.
        workers: number of threads that decode images ahead.
        limits: which files are accepted.
        progress: called with (done, total) after each image.

    Raises:
        PocketiqaError: ``model`` is none, cannot be opened, or an id occurs twice.
    """
    if len({sample.id for sample in samples}) < len(samples):
        raise PocketiqaError("two samples have the same id: predictions are matched by id, so give each its own")
    kind = kind_of(model)
    if kind == "labels":
        return _from_store(location(model), samples, name, progress)
    predictor = open_predictor(model, options=options, device=device, threads=threads)
    return predict_samples(predictor, kind, samples, name=name, workers=workers, limits=limits, progress=progress)


def predict_samples(
    predictor: Predictor,
    kind: str,
    samples: Sequence[Sample],
    *,
    name: str | None = None,
    workers: int = 1,
    limits: DecodeLimits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Predictions:
    """Score images with a model that is loaded already; arguments as for ``predict``."""
    rows = []
    for pixels in decoded_ahead(samples, predictor.needs_reference, limits, workers):
        rows.append(_row(predictor, pixels))
        if progress:
            progress(len(rows), len(samples))
    return _collected(name or predictor.name, kind, samples, rows, predictor.about)


def _row(predictor: Predictor, pixels: Pixels | ImageError) -> _Row:
    nothing = float("nan")
    if isinstance(pixels, ImageError):
        return nothing, pixels.status, pixels.reason
    try:
        score = predictor.score(*pixels)
    except ImageError as error:
        return nothing, error.status, error.reason
    # A teacher may refuse one image (too wide, out of memory); the run continues and the row carries the reason.
    except PocketiqaError as error:
        return nothing, Status.FAILED, str(error)
    # Metrics refuse NaN: such an image is left out, like one that cannot be read.
    if not np.isfinite(score):
        return nothing, Status.FAILED, "the model gave no finite score"
    return score, Status.OK, ""


def _collected(
    name: str, kind: str, samples: Sequence[Sample], rows: Sequence[_Row], about: dict[str, Any]
) -> Predictions:
    return Predictions(
        name=name,
        kind=kind,
        ids=tuple(sample.id for sample in samples),
        scores=np.array([score for score, _, _ in rows], np.float64),
        statuses=tuple(status for _, status, _ in rows),
        reasons=tuple(reason for _, _, reason in rows),
        about=about,
    )


def _from_store(folder: Path, samples: Sequence[Sample], name: str | None, progress: Progress | None) -> Predictions:
    """Scores that a store holds already, looked up by image id in its pool, or else by the checksum of the file."""
    from pseudo_labels.store import LabelStore

    store = LabelStore.open(folder)
    table = store.labels().select(["id", "sha256", "view", "status", "reason", "score"]).to_pylist()
    # Crops have scores of their own; a prediction is about the full image.
    full = [row for row in table if row["view"] == FULL]
    # A pool row with the bytes of an earlier one has that row's id, and no score. From the last to the first, scored
    # rows at the end, so that of equal keys the scored row stays, else the first.
    full.sort(key=lambda row: row["status"] == Status.OK, reverse=True)
    full.reverse()
    # A benchmark may hold the photographs of the pool under other ids, so the content of the file is the second key.
    by_id, by_content = {row["id"]: row for row in full}, {row["sha256"]: row for row in full if row["sha256"]}
    rows = []
    for done, sample in enumerate(samples, start=1):
        rows.append(_store_row(by_id, by_content, sample))
        if progress:
            progress(done, len(samples))
    about = {"stamp": store.spec.stamp.as_dict(), "digest": store.digest, "pool": store.spec.pool_digest}
    return _collected(name or store.spec.stamp.name, "labels", samples, rows, about)


def _store_row(by_id: Mapping[str, Any], by_content: Mapping[str, Any], sample: Sample) -> _Row:
    row = by_id.get(sample.id)
    if row is None:
        try:
            # Only for an unknown id: this reads the whole file.
            row = by_content.get(sha256_bytes(sample.read()))
        except ImageError as error:
            return float("nan"), error.status, error.reason
    if row is None:
        return float("nan"), Status.MISSING, "the label store holds no label of this image"
    status = Status(row["status"])
    return (float(row["score"]) if status == Status.OK else float("nan")), status, row["reason"]
