"""All checks on one or more exported students, each photograph decoded and distorted once for all of them."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from distill.stress.formats import FormatDifferences, Formats, Sizes, SizeScores, at_sizes, formats, in_formats, sizes
from distill.stress.odd_images import OddImages, odd_images
from distill.stress.ordering import Ladder, Ordering, ladders, ordering
from distill.stress.photograph import Photograph
from distill.stress.pointing import Pointed, Pointing, pointed, pointing
from distill.terminal.console import shown
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.metrics.draws import MIN_GROUPS, Draws, Interval, interval
from pseudo_labels.parallel import Progress
from students.runtime import Scorer

_COLUMNS = ("check", "n", "figure", "95 % interval", "limit", "passed")
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
        described = [
            {**asdict(verdict), "limit": verdict.limit_words, "passed": verdict.passed, "failed": verdict.failed}
            for verdict in verdicts(self)
        ]
        for verdict in described:
            # ``limit_words`` and ``failed`` say it already.
            del verdict["at_least"], verdict["of_photographs"]
        fields = asdict(self)
        del fields["intervals"]  # those of the verdicts stand there
        return _plain({"passed": self.passed, "failed": self.failed, "verdicts": described, **fields})


def stress(
    models: Sequence[str | os.PathLike[str] | None],
    photographs: Sequence[str | os.PathLike[str]],
    *,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> tuple[StressResult, ...]:
    """Measure exported students on clean photographs.

    Args:
        models: model files or names, as for ``Scorer``.
        photographs: image files that are sharp and without visible distortion: what a distortion changes is measured.
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
            for run in runs:
                run.measure(photograph)
        if progress is not None:
            progress(done, len(photographs))
    return tuple(run.result() for run in runs)


class _Run:
    """One student on its way through the photographs."""

    def __init__(self, model: str | os.PathLike[str] | None):
        self._scorer = Scorer(model)
        # A second session of the same file: one that repeats itself may still hold state that another does not.
        self._odd = odd_images(self._scorer, Scorer(model))
        self._ladders: list[list[Ladder]] = []
        self._sizes: list[SizeScores] = []
        self._formats: list[FormatDifferences] = []
        self._pointed: list[list[Pointed]] = []

    @property
    def photographs(self) -> int:
        """Number of photographs measured so far."""
        return len(self._sizes)

    def measure(self, photograph: Photograph) -> None:
        self._ladders.append(ladders(self._scorer, photograph))
        self._sizes.append(at_sizes(self._scorer, photograph))
        self._formats.append(in_formats(self._scorer, photograph))
        self._pointed.append(pointed(self._scorer, photograph))

    def result(self) -> StressResult:
        return StressResult(
            model=self._scorer.contract.name,
            digest=self._scorer.digest,
            photographs=self.photographs,
            ordering=ordering([ladder for own in self._ladders for ladder in own]),
            sizes=sizes(self._sizes),
            formats=formats(self._formats),
            odd_images=self._odd,
            pointing=pointing([case for own in self._pointed for case in own]),
            intervals=self._intervals(),
        )

    def _intervals(self) -> dict[str, Interval]:
        spread = _interval(one.spread for one in self._sizes)
        ordered = [
            [(ladder.distortion, right) for ladder in own for right in ladder.steps_right] for own in self._ladders
        ]
        pointed = [[(case.distortion, case.right) for case in own] for own in self._pointed]
        return {"spread": spread, **_fraction_intervals("ordered", ordered), **_fraction_intervals("pointed", pointed)}


def _fraction_intervals(name: str, photographs: Sequence[Sequence[tuple[str, bool]]]) -> dict[str, Interval]:
    """Intervals of the fraction of right cases, of all and of each distortion; cases a photograph."""
    distortions = dict.fromkeys(distortion for own in photographs for distortion, _ in own)
    intervals = {name: _interval(fmean(right for _, right in own) for own in photographs)}
    for distortion in distortions:
        values = (fmean(right for one, right in own if one == distortion) for own in photographs)
        intervals[f"{name} {distortion}"] = _interval(values)
    return intervals


def _interval(values: Iterable[float]) -> Interval:
    """95 % interval of a mean over photographs, which are drawn with replacement."""
    column = np.array(list(values), np.float64)
    draws = Draws.of(len(column))
    return interval(np.concatenate([counts @ column / len(column) for counts in draws.counts()]), len(column))


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


@dataclass(frozen=True)
class Verdict:
    """One figure against its limit.

    Attributes:
        check: name of what was measured, in words.
        figure: measured value; NaN passes no limit.
        limit: limit on the scale of the figure.
        at_least: whether the figure may not be below the limit; else it may not be above.
        n: number of pictures that were measured.
        low: lower bound of the figure's 95 % interval; NaN if there is none.
        high: upper bound of that interval.
        of_photographs: whether it depends on which photographs were chosen.
    """

    check: str
    figure: float
    limit: float
    at_least: bool = False
    n: int = 0
    low: float = math.nan
    high: float = math.nan
    of_photographs: bool = False

    @property
    def passed(self) -> bool:
        """Whether the limit is kept."""
        # Both comparisons are false for NaN, so a figure that could not be measured never passes.
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit

    @property
    def failed(self) -> bool:
        """Whether the limit is missed by more than the choice of photographs explains.

        Of few photographs a miss proves nothing, nor does one where the interval holds the limit.
        """
        if self.passed or not self.of_photographs or math.isnan(self.figure):
            return not self.passed
        if self.n < MIN_GROUPS:
            return False
        return not (self.high >= self.limit if self.at_least else self.low <= self.limit)

    @property
    def outcome(self) -> str:
        """``yes``, ``no``, or ``undecided`` where the limit is missed and that proves nothing."""
        return "yes" if self.passed else "no" if self.failed else "undecided"

    @property
    def limit_words(self) -> str:
        """The limit for a person, such as ``at least 0.95``."""
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g}"

    def __str__(self) -> str:
        return f"{self.check}: {self.figure:.4g}, {self.limit_words}"


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


def stress_table(result: StressResult) -> Table:
    """A row for each limit: check, n, figure, interval, limit, passed; then both fractions by distortion."""
    title = f"{shown(result.model)} ({result.digest[:12]}) on {result.photographs} photographs"
    table = Table(*_COLUMNS, title=title, title_justify="left")
    colours = {"yes": "green", "no": "red", "undecided": "yellow"}
    for verdict in verdicts(result):
        passed = Text(verdict.outcome, colours[verdict.outcome])
        measured = (str(verdict.n), f"{verdict.figure:.4g}", _interval_words(verdict.low, verdict.high))
        table.add_row(verdict.check, *measured, verdict.limit_words, passed)
    table.add_section()
    _add_fractions(table, "ordered", "ordered rightly", result.ordering.fraction_by_distortion, result)
    _add_fractions(table, "pointed", "pointed at", result.pointing.fraction_by_distortion, result)
    if any(verdict.outcome == "undecided" for verdict in verdicts(result)):
        table.caption = (
            f"undecided: missed, but by no more than the choice of photographs explains (or there are fewer than "
            f"{MIN_GROUPS}): name more photographs"
        )
    return table


def _interval_words(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"{low:.4g} to {high:.4g}"


def _add_fractions(table: Table, name: str, words: str, fractions: Mapping[str, float], result: StressResult) -> None:
    for distortion, fraction in fractions.items():
        bounds = result.intervals.get(f"{name} {distortion}")
        interval_words = "" if bounds is None else _interval_words(bounds.low, bounds.high)
        # No limit: these rows say which distortion makes the figures above.
        measured = (str(result.photographs), f"{fraction:.4g}", interval_words)
        table.add_row(f"{distortion}, {words}", *measured, "", "")
