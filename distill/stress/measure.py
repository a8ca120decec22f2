"""All checks on one or more exported students, each photograph decoded and distorted once for all of them."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from distill.stress.formats import FormatDifferences, Formats, Sizes, SizeScores, at_sizes, formats, in_formats, sizes
from distill.stress.levels import LevelTable, level_table, level_verdicts
from distill.stress.odd_images import OddImages, odd_images
from distill.stress.ordering import DISTORTIONS, Ladder, Ordering, ladders, ordering
from distill.stress.photograph import Photograph
from distill.stress.pointing import Pointed, Pointing, pointed, pointing
from distill.stress.verdict import Verdict, mean_interval
from pseudo_labels.distort import CATALOGUE
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.metrics.draws import Interval
from pseudo_labels.parallel import Progress
from students.runtime import Scorer

# Scripts read these files: the keys stay as they were first written, whatever the fields are called.
_ON_DISK = {
    "fraction": "share",
    "fraction_by_distortion": "share_by_damage",
    "fraction_by_step": "share_by_step",
    "distortion": "damage",
}


@dataclass(frozen=True)
class StressResult:
    """Measurements of one student.

    Attributes:
        model: the name in its contract.
        digest: hex SHA-256 that identifies the model.
        photographs: number of photographs it was measured on.
        ordering: fractions of pairs in which the stronger distortion has the lower score.
        sizes: spread of the score over sizes of one picture.
        formats: differences of the score between file formats of one picture.
        odd_images: outputs for pictures that are no photographs.
        pointing: fractions of distorted quarters that the quality map points at.
        levels: the order of levels of all distortions; None if only those of ``ordering`` were measured.
        intervals: 95 % intervals over photographs of ``ordered``, ``spread`` and ``pointed``, and of ``ordered`` and
            ``pointed`` by distortion, such as ``ordered jpeg``.
    """

    model: str
    digest: str
    photographs: int
    ordering: Ordering
    sizes: Sizes
    formats: Formats
    odd_images: OddImages
    pointing: Pointing
    levels: LevelTable | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict, compare=False)

    @property
    def passed(self) -> bool:
        """Whether every limit is kept."""
        return all(verdict.passed for verdict in verdicts(self))

    @property
    def failed(self) -> bool:
        """Whether a limit is missed by more than the choice of photographs explains."""
        return any(verdict.failed for verdict in verdicts(self))

    def as_dict(self) -> dict[str, Any]:
        """JSON form, with the verdicts; a figure that is no number is None."""
        fields = asdict(self)
        del fields["intervals"]  # those of the verdicts stand there
        if self.levels is not None:
            fields["levels"]["verdicts"] = {name: _told(one) for name, one in level_verdicts(self.levels).items()}
        told = [_told(verdict) for verdict in verdicts(self)]
        return _plain({"passed": self.passed, "failed": self.failed, "verdicts": told, **fields})


def _told(verdict: Verdict) -> dict[str, Any]:
    fields = asdict(verdict) | {"limit": verdict.limit_words, "passed": verdict.passed, "failed": verdict.failed}
    # ``limit_words`` and ``failed`` say it already.
    del fields["at_least"], fields["of_photographs"]
    return fields


def stress(
    models: Sequence[str | os.PathLike[str] | None],
    photographs: Sequence[str | os.PathLike[str]],
    *,
    short: bool = False,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> tuple[StressResult, ...]:
    """Measure exported students on clean photographs.

    Args:
        models: model files or names, as for ``Scorer``.
        photographs: image files that are sharp and without visible distortion: what a distortion changes is measured.
        short: of the catalogue, only the distortions of ``ordering``, which takes a quarter of the time.
        progress: called with (done, total) after each photograph.
        warn: called with the reason for each photograph that cannot be used, and is left out; without it, it is raised.

    Returns:
        A result a model, in their order.

    Raises:
        PocketiqaError: no photographs that can be used, a model that cannot, or one without a finite score.
    """
    if not photographs:
        raise PocketiqaError("there are no photographs to measure on: name image files, or folders that hold some")
    runs = [_Run(model) for model in models]
    for done, path in enumerate(photographs, start=1):
        # Photographs outside, models inside: each is decoded and distorted once for all models, and only one with its
        # copies is in memory.
        try:
            photograph = Photograph.open(path)
        except PocketiqaError as error:
            if warn is None or (done == len(photographs) and not runs[0].photographs):
                raise
            warn(str(error))
        else:
            _measure(runs, photograph, tuple(CATALOGUE) if not short else DISTORTIONS)
        if progress is not None:
            progress(done, len(photographs))
    return tuple(run.result(short=short) for run in runs)


def _measure(runs: "Sequence[_Run]", photograph: Photograph, distortions: Sequence[str]) -> None:
    for run in runs:
        run.measure(photograph)
    walks = [ladders(run.scorer, photograph, distortions) for run in runs]
    # All models a distortion, then its copies are dropped.
    for distortion, *own in zip(distortions, *walks, strict=True):
        for run, ladder in zip(runs, own, strict=True):
            run.ladders.append(ladder)
        photograph.forget(distortion)


class _Run:
    """One student on its way through the photographs."""

    def __init__(self, model: str | os.PathLike[str] | None):
        self.scorer = Scorer(model)
        self.ladders: list[Ladder] = []
        # A second session of the same file: one that repeats itself may still hold state that another does not.
        self._odd = odd_images(self.scorer, Scorer(model))
        self._sizes: list[SizeScores] = []
        self._formats: list[FormatDifferences] = []
        self._pointed: list[list[Pointed]] = []

    @property
    def photographs(self) -> int:
        """Number of photographs measured so far."""
        return len(self._sizes)

    def measure(self, photograph: Photograph) -> None:
        """All checks but the levels of distortions, which all models walk together."""
        self._sizes.append(at_sizes(self.scorer, photograph))
        self._formats.append(in_formats(self.scorer, photograph))
        self._pointed.append(pointed(self.scorer, photograph))

    def result(self, *, short: bool) -> StressResult:
        return StressResult(
            model=self.scorer.contract.name,
            digest=self.scorer.digest,
            photographs=self.photographs,
            ordering=ordering(self.ladders),
            sizes=sizes(self._sizes),
            formats=formats(self._formats),
            odd_images=self._odd,
            pointing=pointing([case for own in self._pointed for case in own]),
            levels=None if short else level_table(self.ladders),
            intervals=self._intervals(),
        )

    def _intervals(self) -> dict[str, Interval]:
        spread = mean_interval(one.spread for one in self._sizes)
        # By photograph: the ladders of one follow each other.
        each = len(self.ladders) // self.photographs
        walks = [self.ladders[start : start + each] for start in range(0, len(self.ladders), each)]
        ordered = [
            [(one.distortion, right) for one in own if one.distortion in DISTORTIONS for right in one.steps_right]
            for own in walks
        ]
        pointed = [[(case.distortion, case.right) for case in own] for own in self._pointed]
        return {"spread": spread, **_fraction_intervals("ordered", ordered), **_fraction_intervals("pointed", pointed)}


def _fraction_intervals(name: str, photographs: Sequence[Sequence[tuple[str, bool]]]) -> dict[str, Interval]:
    """Intervals of the fraction of right cases, of all and of each distortion; cases a photograph."""
    distortions = dict.fromkeys(distortion for own in photographs for distortion, _ in own)
    intervals = {name: mean_interval(fmean(right for _, right in own) for own in photographs)}
    for distortion in distortions:
        values = (fmean(right for one, right in own if one == distortion) for own in photographs)
        intervals[f"{name} {distortion}"] = mean_interval(values)
    return intervals


def _plain(value: Any) -> Any:
    """JSON values under the keys of the file, with None for what JSON cannot spell."""
    if isinstance(value, dict):
        return {_ON_DISK.get(key, key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    # JSON has no NaN or infinity; the verdict beside it says that the limit was missed.
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Limits:
    """The limits that a student has to keep.

    Attributes:
        least_ordered: fraction of neighbouring pairs of strengths that are ordered rightly.
        most_beaten: number of clean originals that do not beat their worst copy.
        most_size_spread: mean over photographs of highest minus lowest score among the sizes.
        most_format_difference: largest difference of a score between two files of the same picture.
        most_odd_faults: number of odd images that are out of range or not finite; also the number of those that are not
            repeatable.
        most_batch_difference: largest difference between batch sizes.
        least_pointed: fraction of distorted quarters that the quality map points at.
    """

    least_ordered: float = 0.95
    most_beaten: int = 0
    most_size_spread: float = 0.05
    most_format_difference: float = 0.005
    most_odd_faults: int = 0
    # As much as an export may differ from torch: another batch size only adds up in another order.
    most_batch_difference: float = 1e-4
    least_pointed: float = 0.90


LIMITS = Limits()


def verdicts(result: "StressResult", limits: Limits = LIMITS) -> list[Verdict]:
    """Every limit with the figure that it is for, in the order in which they are told."""
    formats, odd = result.formats, result.odd_images
    ordered, spread, pointed = (_bounds(result.intervals.get(name)) for name in ("ordered", "spread", "pointed"))
    # What a photograph shows decides these figures, but for an opaque alpha channel, which must change nothing.
    photographs: dict[str, Any] = {"n": result.photographs, "of_photographs": True}
    files: dict[str, Any] = {"limit": limits.most_format_difference, **photographs}
    odd_pictures: dict[str, Any] = {"n": len(odd.images)}
    return [
        Verdict(
            "pairs of strengths ordered rightly", result.ordering.fraction, limits.least_ordered, at_least=True,
            **photographs, **ordered,
        ),
        Verdict(
            "originals that their worst copy beats", result.ordering.originals_beaten, limits.most_beaten, **photographs
        ),
        Verdict(
            "spread between sizes, mean", result.sizes.mean_spread, limits.most_size_spread, **photographs, **spread
        ),
        Verdict("turned by EXIF against upright", formats.exif, **files),
        Verdict("JPEG of quality 100 against PNG", formats.jpeg, **files),
        Verdict("RGBA against RGB", formats.alpha, limits.most_format_difference, n=result.photographs),
        Verdict("odd images out of range", odd.out_of_range, limits.most_odd_faults, **odd_pictures),
        Verdict("odd images not repeatable", odd.unrepeatable, limits.most_odd_faults, **odd_pictures),
        Verdict("odd images, between batch sizes", odd.batch_difference, limits.most_batch_difference, **odd_pictures),
        Verdict(
            "distorted quarters pointed at", result.pointing.fraction, limits.least_pointed, at_least=True,
            **photographs, **pointed,
        ),
    ]  # fmt: skip


def _bounds(interval: Interval | None) -> dict[str, Any]:
    return {} if interval is None else {"low": interval.low, "high": interval.high}
