"""Does the score stay when only the number of pixels changes?"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from distill.stress.photograph import Photograph, resized
from students.runtime import Scorer

SIDES_PX = (384, 512, 768, 1024)
_SHOWN = 5


@dataclass(frozen=True)
class SizeScores:
    """Scores of one photograph at ``SIDES_PX``, in that order; in [0, 1]."""

    photograph: str
    scores: tuple[float, ...]

    @property
    def spread(self) -> float:
        """Highest minus lowest score: all sizes lie within it of each other."""
        return max(self.scores) - min(self.scores)


@dataclass(frozen=True)
class Sizes:
    """How much the size of a picture matters.

    Attributes:
        mean_spread: over photographs, of highest minus lowest score among the sizes. (The mean difference of two sizes
            is smaller: at most two thirds of it.)
        mean_score: over photographs, at each of ``SIDES_PX``: whether larger pictures score higher as a rule.
        worst: the photographs with the largest spread.
    """

    mean_spread: float
    mean_score: tuple[float, ...]
    worst: tuple[SizeScores, ...]


def at_sizes(scorer: Scorer, photograph: Photograph) -> SizeScores:
    """Score a photograph with longer sides of ``SIDES_PX``, each made from the original by Lanczos.

    Sizes above the original's are enlarged, which adds no detail; the student shrinks them to its input again.

    Raises:
        ImageError: the model gives no finite score.
    """
    pictures = (resized(photograph.original, side) for side in SIDES_PX)
    return SizeScores(photograph.name, tuple(scorer.score(picture).score for picture in pictures))


def sizes(found: Sequence[SizeScores]) -> Sizes:
    """Summarise photographs, at least one."""
    columns = zip(*(one.scores for one in found), strict=True)
    return Sizes(
        mean_spread=fmean(one.spread for one in found),
        mean_score=tuple(map(fmean, columns)),
        worst=tuple(sorted(found, key=lambda one: -one.spread)[:_SHOWN]),
    )
