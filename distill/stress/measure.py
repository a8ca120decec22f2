"""All checks on one or more exported students, each photograph decoded and damaged once for all of them."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from distill.stress.formats import FormatDifferences, Formats, Sizes, SizeScores, at_sizes, formats, in_formats, sizes
from distill.stress.odd_images import OddImages, odd_images
from distill.stress.ordering import Ladder, Ordering, ladders, ordering
from distill.stress.photograph import Photograph
from distill.stress.pointing import Pointed, Pointing, pointed, pointing
from distill.terminal.console import shown
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.parallel import Progress
from students.runtime import Scorer


@dataclass(frozen=True)
class StressResult:
    """What was measured of one student.

    Attributes:
        model: the name in its contract.
        digest: hex SHA-256 that identifies the model.
        photographs: how many it was measured on.
        ordering: of damage by strength.
        sizes: of the same picture.
        formats: of the same picture.
        odd_images: that are no photographs.
        pointing: of the quality map.
    """

    model: str
    digest: str
    photographs: int
    ordering: Ordering
    sizes: Sizes
    formats: Formats
    odd_images: OddImages
    pointing: Pointing

    @property
    def passed(self) -> bool:
        """Whether every limit is kept."""
        return all(verdict.passed for verdict in verdicts(self))

    def as_dict(self) -> dict[str, Any]:
        """JSON form, with the verdicts; a figure that is no number is None."""
        told = [
            {**asdict(verdict), "limit": verdict.limit_words, "passed": verdict.passed} for verdict in verdicts(self)
        ]
        for verdict in told:
            del verdict["at_least"]
        return _plain({"passed": self.passed, "verdicts": told, **asdict(self)})


def stress(
    models: Sequence[str | os.PathLike[str] | None],
    photographs: Sequence[str | os.PathLike[str]],
    *,
    progress: Progress | None = None,
) -> tuple[StressResult, ...]:
    """Measure exported students on clean photographs.

    Args:
        models: as for ``Scorer``.
        photographs: image files that are sharp and without visible damage: what is measured is what damage changes.
        progress: called with (done, total) after each photograph.

    Returns:
        A result a model, in their order.

    Raises:
        PocketiqaError: no photographs, a model or photograph that cannot be used, or a model without a finite score.
    """
    if not photographs:
        raise PocketiqaError("there are no photographs to measure on: name image files, or folders that hold some")
    runs = [_Run(model) for model in models]
    for done, path in enumerate(photographs, start=1):
        photograph = Photograph.open(path)
        for run in runs:
            run.measure(photograph)
        if progress is not None:
            progress(done, len(photographs))
    return tuple(run.result() for run in runs)


class _Run:
    """One student on its way through the photographs."""

    def __init__(self, model: str | os.PathLike[str] | None):
        self._scorer = Scorer(model)
        self._odd = odd_images(self._scorer, Scorer(model))
        self._ladders: list[Ladder] = []
        self._sizes: list[SizeScores] = []
        self._formats: list[FormatDifferences] = []
        self._pointed: list[Pointed] = []

    def measure(self, photograph: Photograph) -> None:
        self._ladders += ladders(self._scorer, photograph)
        self._sizes.append(at_sizes(self._scorer, photograph))
        self._formats.append(in_formats(self._scorer, photograph))
        self._pointed += pointed(self._scorer, photograph)

    def result(self) -> StressResult:
        return StressResult(
            model=self._scorer.contract.name,
            digest=self._scorer.digest,
            photographs=len(self._sizes),
            ordering=ordering(self._ladders),
            sizes=sizes(self._sizes),
            formats=formats(self._formats),
            odd_images=self._odd,
            pointing=pointing(self._pointed),
        )


def _plain(value: Any) -> Any:
    """JSON values, with None for what JSON cannot spell."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Limits:
    """What is asked for.

    Attributes:
        least_ordered: share of neighbouring pairs of strengths that are ordered rightly.
        most_beaten: clean originals that do not beat their worst copy.
        most_size_spread: mean over photographs of highest minus lowest score among the sizes.
        most_format_difference: largest difference of a score between two files of the same picture.
        most_odd_faults: odd images out of range or not finite, and likewise odd images that are not repeatable.
        most_batch_difference: largest difference between batch sizes.
        least_pointed: share of damaged quarters that the quality map points at.
    """

    least_ordered: float = 0.95
    most_beaten: int = 0
    most_size_spread: float = 0.05
    most_format_difference: float = 0.005
    most_odd_faults: int = 0
    most_batch_difference: float = 1e-4
    least_pointed: float = 0.90


LIMITS = Limits()


@dataclass(frozen=True)
class Verdict:
    """One figure against its limit.

    Attributes:
        check: what was measured, in words.
        figure: as measured; one that is no number passes nothing.
        limit: on the same scale.
        at_least: whether the figure may not be below the limit; else it may not be above.
    """

    check: str
    figure: float
    limit: float
    at_least: bool = False

    @property
    def passed(self) -> bool:
        """Whether the limit is kept."""
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit

    @property
    def limit_words(self) -> str:
        """The limit for a person, such as ``at least 0.95``."""
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g}"

    def __str__(self) -> str:
        return f"{self.check}: {self.figure:.4g}, {self.limit_words}"


def verdicts(result: "StressResult", limits: Limits = LIMITS) -> list[Verdict]:
    """Every limit with the figure that it is for, in the order in which they are told."""
    formats, odd = result.formats, result.odd_images
    return [
        Verdict("pairs of strengths ordered rightly", result.ordering.fraction, limits.least_ordered, at_least=True),
        Verdict("originals that their worst copy beats", result.ordering.originals_beaten, limits.most_beaten),
        Verdict("spread between sizes, mean", result.sizes.mean_spread, limits.most_size_spread),
        Verdict("turned by EXIF against upright", formats.exif, limits.most_format_difference),
        Verdict("JPEG of quality 100 against PNG", formats.jpeg, limits.most_format_difference),
        Verdict("RGBA against RGB", formats.alpha, limits.most_format_difference),
        Verdict("odd images out of range", odd.out_of_range, limits.most_odd_faults),
        Verdict("odd images not repeatable", odd.unrepeatable, limits.most_odd_faults),
        Verdict("odd images, between batch sizes", odd.batch_difference, limits.most_batch_difference),
        Verdict("damaged quarters pointed at", result.pointing.fraction, limits.least_pointed, at_least=True),
    ]


def stress_table(result: StressResult) -> Table:
    """A row a limit: check, figure, limit, passed; then what the two shares are made of."""
    title = f"{shown(result.model)} ({result.digest[:12]}) on {result.photographs} photographs"
    table = Table("check", "figure", "limit", "passed", title=title, title_justify="left")
    for verdict in verdicts(result):
        passed = Text("yes", "green") if verdict.passed else Text("no", "red")
        table.add_row(verdict.check, f"{verdict.figure:.4g}", verdict.limit_words, passed)
    table.add_section()
    _add_fractions(table, "ordered rightly", result.ordering.fraction_by_distortion)
    _add_fractions(table, "pointed at", result.pointing.fraction_by_distortion)
    return table


def _add_fractions(table: Table, words: str, fractions: Mapping[str, float]) -> None:
    for distortion, fraction in fractions.items():
        table.add_row(f"{distortion}, {words}", f"{fraction:.4g}", "", "")
