"""All checks on one or more exported students, each photograph decoded and damaged once for all of them."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distill.stress.formats import FormatDifferences, Formats, formats, in_formats
from distill.stress.limits import verdicts
from distill.stress.odd_images import OddImages, odd_images
from distill.stress.ordering import Ladder, Ordering, ladders, ordering
from distill.stress.photograph import Photograph
from distill.stress.pointing import Pointed, Pointing, pointed, pointing
from distill.stress.sizes import Sizes, SizeScores, at_sizes, sizes
from pseudo_labels.errors import PocketiqaError
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
    progress: Callable[[int, int], None] | None = None,
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
