"""Fit SEAGULL to region labels: labelled regions in, a folder with the fitted teacher out.

The run is that of every fitting (``training.run``, ``training.teacher``): the same folder, loop, split by scenes and
exact resume. Its own are the examples, which are instruction pairs of regions, the loss of the answers, and the cache
of the frozen vision tower's feature maps, 12 MB a picture in the published size.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from distill.data.labelled_regions import RegionExamples
from distill.data.split import Part, Split
from distill.recipe.training import FitConfig
from distill.training.environment import training_environment
from distill.training.learner import Cut, Learner
from distill.training.loop import Warn
from distill.training.run import TRACKERS
from distill.training.teacher import FitResult, TeacherLearner, TeacherRun, built, fit_result, opened
from distill.training.validation import correlations
from pseudo_labels import outputs
from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.files import digest_of
from pseudo_labels.parallel import Progress
from teachers.checksummed import read_checksummed, tensor_digest, write_checksummed
from teachers.seagull.language import IMPORTANCE, LEVEL_WORDS, QUALITY
from teachers.seagull.model import preprocess
from teachers.seagull.teacher import RegionInput, SeagullTeacher, region_input
from teachers.seagull.tuning import AnswerLoss, Instruction, RegionBatch, instructions

_KIND = "feature maps of a picture"
_MAPS = "features"
_ORDER = 17  # keeps the random numbers of the order apart from all others of a seed
_BYTES_KEPT = 256 << 20  # of prepared regions: a small set need not be decoded again in each pass


class FeatureCache:
    """Feature maps of the frozen vision tower, computed once a picture and kept in float16.

    Args:
        folder: one safetensors file a picture.
        teacher: its tower is used.
        pixels: see ``RegionExamples``.
    """

    def __init__(self, folder: Path, teacher: SeagullTeacher, pixels: Callable[[str], np.ndarray]):
        self._folder, self._teacher, self._pixels = folder, teacher, pixels
        self._tower = tensor_digest(teacher.model.tower.state_dict())
        self._recent = lru_cache(maxsize=32)(self._read)

    def fill(self, images: Sequence[str], progress: Progress | None = None) -> None:
        """Compute the maps of those pictures that have none yet; what is corrupt or of other weights is made anew."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images, start=1):
            try:
                self._read(image)
            except PocketiqaError:
                self._write(image)
            if progress:
                progress(number, len(images))

    def maps(self, image: str) -> list[Tensor]:
        """The four maps of a picture, float16 [C, h, w] each."""
        return self._recent(image)

    def _path(self, image: str) -> Path:
        return self._folder / f"{digest_of([self._tower, image])[:24]}.safetensors"

    def _write(self, image: str) -> None:
        pixels = preprocess(self._pixels(image), self._teacher.side_px)
        maps = self._teacher.model.feature_maps(pixels[None].to(self._teacher.model.device))
        tensors = {str(number): level[0].half() for number, level in enumerate(maps)}
        write_checksummed(self._path(image), _KIND, {"image": image, "tower": self._tower}, tensors)

    def _read(self, image: str) -> list[Tensor]:
        head, tensors = read_checksummed(self._path(image), _KIND, mend="run the fitting again, which computes it")
        if head != {"image": image, "tower": self._tower}:
            raise IntegrityError(f"{self._path(image)} is of another picture or other weights: remove it")
        return [tensors[str(number)] for number in range(len(tensors))]


class RegionBatchMaker:
    """Makes this process's batches; which pair comes when follows from seed and number alone.

    Args:
        teacher: prepares masks and crops.
        examples: of the training part.
        cache: feature maps of their pictures.
        judgements: see ``FitConfig``.
        fraction: ``per_process``, ``rank``, ``world`` and ``seed``.
    """

    def __init__(
        self, teacher: SeagullTeacher, examples: RegionExamples, cache: FeatureCache, *, judgements: bool = True,
        **fraction: int,
    ):  # fmt: skip
        self._teacher, self._examples, self._cache, self._fraction = teacher, examples, cache, fraction
        asked = teacher.asking.questions
        self._pairs = [
            (number, pair)
            for number, region in enumerate(examples.regions)
            for pair in instructions(region.labels, questions=asked, judgements=judgements, draw=number)
        ]
        self._pass = lru_cache(maxsize=2)(self._permuted)
        side = teacher.side_px
        # Of each region a mask in bytes, and a crop of three channels in float32.
        self._input = lru_cache(maxsize=max(1, _BYTES_KEPT // (13 * side * side)))(self._read)

    def _permuted(self, number: int) -> np.ndarray:
        return np.random.default_rng([self._fraction["seed"], _ORDER, number]).permutation(len(self._pairs))

    def make(self, micro_batch: int) -> RegionBatch:
        """The part of this process in micro-batch number ``micro_batch`` of the run."""
        size = self._fraction["per_process"]
        first = (micro_batch * self._fraction["world"] + self._fraction["rank"]) * size
        places = (divmod(place, len(self._pairs)) for place in range(first, first + size))
        return self.of([self._pairs[self._pass(number)[place]] for number, place in places])

    def _read(self, number: int) -> RegionInput:
        region = self._examples.regions[number]
        return region_input(self._examples.pixels(region.image), region.mask(), self._teacher.side_px)

    def of(self, rows: Sequence[tuple[int, Instruction]]) -> RegionBatch:
        """A batch of regions, by their numbers, with a pair each."""
        regions = [self._examples.regions[number] for number, _ in rows]
        images = sorted({region.image for region in regions})
        inputs = [self._input(number) for number, _ in rows]
        return RegionBatch(
            [self._cache.maps(image) for image in images],
            [images.index(region.image) for region in regions],
            torch.stack([entry.mask for entry in inputs]),
            torch.stack([entry.crop for entry in inputs]),
            [pair for _, pair in rows],
        )


class RegionValidator:
    """Asks the teacher about held-out regions as in use.

    Args:
        teacher: being fitted.
        examples: of the validation part.
        cache: feature maps of their pictures.
    """

    def __init__(self, teacher: SeagullTeacher, examples: RegionExamples, cache: FeatureCache):
        self._teacher, self._examples, self._cache = teacher, examples, cache

    def validate(self) -> dict[str, Any]:
        """Correlations of each grade, by name; ``score`` is the SRCC of the quality, which chooses the best.

        An answer without a level word counts as the middle of the scale.
        """
        regions = self._examples.regions
        scores = [score for image in self._images() for score in self._scores(image)]
        ordered = [region for image in self._images() for region in regions if region.image == image]
        metrics = {}
        for name in LEVEL_WORDS:
            pairs = [
                (value, getattr(region.labels, name))
                for score, region in zip(scores, ordered, strict=True)
                if not np.isnan(getattr(region.labels, name)) and name in (QUALITY, IMPORTANCE, *score.answers)
                for value in [float(np.nan_to_num(getattr(score, name), nan=0.5))]
            ]
            if len(pairs) > 1:
                metrics[name] = correlations(*(np.array(column) for column in zip(*pairs, strict=True)))
        quality = metrics.get(QUALITY, {}).get("srcc")
        return {"score": quality or 0.0, "sources": metrics}

    def _images(self) -> list[str]:
        return sorted({region.image for region in self._examples.regions})

    def _scores(self, image: str) -> list[Any]:
        own = [region for region in self._examples.regions if region.image == image]
        device = self._teacher.model.device
        picture = self._teacher.model.look([level.to(device) for level in self._cache.maps(image)])
        return self._teacher.score_regions(self._examples.pixels(image), (one.mask() for one in own), picture)


class RegionLearner(TeacherLearner):
    """A teacher that learns answers; see ``learner.Learner``."""

    def __init__(
        self, teacher: SeagullTeacher, batches: RegionBatchMaker, validator: RegionValidator, config: FitConfig,
        accelerator: Accelerator,
    ):  # fmt: skip
        super().__init__(
            teacher, batches, validator, config, accelerator, module=AnswerLoss(teacher.model, teacher.tokens)
        )  # fmt: skip
        self._held_out = validator

    @property
    def cut(self) -> Cut | None:
        """Answers do not depend on each other."""
        return lambda batch, most: [(len(part.pairs) / len(batch.pairs), part) for part in batch.cut(most)]

    def losses(self, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean cross entropy of the answers of a ``RegionBatch``."""
        total = self.model(batch).mean()
        return total, {"answer": total}

    def validate(self) -> dict[str, Any]:
        """Score held-out regions with the averaged weights."""
        self.model.eval()
        with self._averaged():
            return self._held_out.validate()


def fit_regions(
    config: FitConfig,
    examples: RegionExamples,
    out: Path,
    *,
    cache: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    cache_progress: Progress | None = None,
    warn: Warn | None = None,
) -> FitResult:
    """Fit, or resume a run that was interrupted; a finished run is returned as it is.

    Args:
        config: ``teacher`` is ``seagull`` or the folder of a fitted one; its ``lora_rank`` is above 0.
        examples: labelled regions.
        out: folder of the run; ``out/teacher`` is the fitted teacher.
        cache: folder for feature maps that several runs use; None keeps them in ``out`` and removes them at the end.
        overwrite: start over.
        progress: called with steps done and in all.
        cache_progress: called with pictures whose feature maps are there, and in all.
        warn: see ``teacher.fit_teacher``.

    Raises:
        PocketiqaError: the teacher is no SEAGULL or cannot be fitted, or there are too few regions or scenes.
        InterruptedRunError: on SIGTERM or SIGINT, after writing a checkpoint.
    """
    out, config = Path(out), opened(config)
    teacher = built(config)
    if not isinstance(teacher, SeagullTeacher):
        raise PocketiqaError(f"teacher {config.teacher!r} does not learn from regions: fit seagull")
    with training_environment(config, out / TRACKERS) as accelerator:
        run = _RegionRun(config, teacher, examples=examples, out=out, accelerator=accelerator, cache=cache)
        return fit_result(out, run.execute(overwrite, progress, cache_progress, warn))


class _RegionRun(TeacherRun):
    """SEAGULL learns from regions."""

    kind = "fit regions"

    def __init__(
        self, config: FitConfig, teacher: SeagullTeacher, *, examples: RegionExamples, out: Path,
        accelerator: Accelerator, cache: Path | None,
    ):  # fmt: skip
        self._seagull, self._examples = teacher, examples
        super().__init__(config, teacher, [], out, accelerator=accelerator, cache=cache)

    def _determining(self) -> dict[str, Any]:
        regions = {"digest": self._examples.digest, "about": dict(self._examples.about)}
        return {**super()._determining(), "regions": regions}

    def _prepared(
        self, claim: outputs.Claim, progress: Progress | None
    ) -> tuple[Callable[[], Learner], dict[str, int]]:
        groups = {region.image: region.group or region.image for region in self._examples.regions}
        split = self._split(groups, {})
        self._seagull.to(self._accelerator.device)
        cache = FeatureCache((self._cache or self._out) / _MAPS, self._seagull, self._examples.pixels)
        images = [image for image, part in sorted(split.parts.items()) if part != Part.TEST]
        if self._main:
            cache.fill(images, progress)
        self._accelerator.wait_for_everyone()
        return lambda: self._region_learner(split, cache), {}

    def _region_learner(self, split: Split, cache: FeatureCache) -> RegionLearner:
        train, held_out = (self._part(split, part) for part in (Part.TRAIN, Part.VALIDATION))
        batches = RegionBatchMaker(
            self._seagull, train, cache, judgements=self._config.judgements, **self._fraction
        )  # fmt: skip
        validator = RegionValidator(self._seagull, held_out, cache)
        return RegionLearner(self._seagull, batches, validator, self._config, self._accelerator)

    def _part(self, split: Split, part: Part) -> RegionExamples:
        """The regions of a part that something is known of.

        Raises:
            PocketiqaError: there is none.
        """
        asked = self._seagull.asking.questions
        regions = [
            region
            for region in self._examples.regions
            if split.parts[region.image] == part and instructions(region.labels, questions=asked)
        ]
        if not regions:
            raise PocketiqaError(f"the {part} part has no region with a label: add labelled regions or scenes")
        return RegionExamples(regions, self._examples.pixels, self._examples.about)

    def _about(self, step: int, validation: dict[str, Any]) -> dict[str, Any]:
        about = {**self._examples.about, "scale": "level words, 0 to 1"}
        data = [{"name": "regions", "digest": self._examples.digest, "about": about}]
        return {**super()._about(step, validation), "data": data}

    def _drop_pixels(self) -> None:
        if self._cache is None:
            shutil.rmtree(self._out / _MAPS, ignore_errors=True)
