"""Does the score fall as distortion grows? Clean photographs against copies of five rising strengths."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from distill.stress.photograph import Photograph
from students.runtime import Scorer

# More of these is always worse to the eye, so that their levels have one right order.
DISTORTIONS = ("gaussian_blur", "white_noise", "jpeg", "jpeg2000")
LEVELS = (1, 2, 3, 4, 5)
_SHOWN = 10


@dataclass(frozen=True)
class Ladder:
    """Scores of one photograph under one distortion.

    Attributes:
        photograph: name of the photograph.
        distortion: name in the catalogue of distortions.
        scores: scores of the clean photograph, then of the levels 1 to 5; in [0, 1].
    """

    photograph: str
    distortion: str
    scores: tuple[float, ...]

    @property
    def steps_right(self) -> tuple[bool, ...]:
        """For each neighbouring pair, whether the more distorted copy has the lower score; equal is wrong."""
        return tuple(better > worse for better, worse in pairwise(self.scores))

    @property
    def original_beaten(self) -> bool:
        """Whether the worst copy, that of level 5, scores as high as the clean photograph, or higher."""
        # Not ``<=``: that is false for NaN, and a score that is no number beats nothing.
        return not self.scores[0] > self.scores[-1]


@dataclass(frozen=True)
class Ordering:
    """Fractions of pairs of strengths that are ordered rightly.

    Attributes:
        fraction: fraction of all neighbouring pairs that are ordered rightly.
        fraction_by_distortion: that fraction for each distortion.
        fraction_by_step: that fraction for each distortion and pair of neighbours, from clean against level 1 to level
            4 against level 5.
        originals_beaten: clean photographs that do not beat their worst copy, counted once a distortion.
        worst: the ladders with the most faults, beaten originals first; none without a fault.
    """

    fraction: float
    fraction_by_distortion: dict[str, float]
    fraction_by_step: dict[str, tuple[float, ...]]
    originals_beaten: int
    worst: tuple[Ladder, ...]


def ladders(scorer: Scorer, photograph: Photograph, distortions: Sequence[str] = DISTORTIONS) -> Iterator[Ladder]:
    """Score a photograph and its distorted copies; one ladder a distortion, each made when it is asked for.

    Raises:
        ImageError: the model gives no finite score.
    """
    clean = scorer.score(photograph.rgb).score
    for distortion in distortions:
        copies = (scorer.score(photograph.distorted(distortion, level)).score for level in LEVELS)
        yield Ladder(photograph.name, distortion, (clean, *copies))


def ordering(scored: Iterable[Ladder]) -> Ordering:
    """Summarise ladders of ``DISTORTIONS``, at least one; those of other distortions are left aside."""
    scored = [ladder for ladder in scored if ladder.distortion in DISTORTIONS]
    steps: dict[str, list[tuple[bool, ...]]] = {}
    for ladder in scored:
        steps.setdefault(ladder.distortion, []).append(ladder.steps_right)
    by_step = {distortion: tuple(map(fmean, zip(*rows, strict=True))) for distortion, rows in steps.items()}
    faulty = [ladder for ladder in scored if not all(ladder.steps_right)]
    # False sorts before True, and fewer right steps before more: the gravest cases come first.
    faulty.sort(key=lambda ladder: (not ladder.original_beaten, sum(ladder.steps_right)))
    return Ordering(
        fraction=fmean([right for ladder in scored for right in ladder.steps_right]),
        # Every step has as many photographs, so the mean of the steps is the mean of all pairs.
        fraction_by_distortion={distortion: fmean(fractions) for distortion, fractions in by_step.items()},
        fraction_by_step=by_step,
        originals_beaten=sum(ladder.original_beaten for ladder in scored),
        worst=tuple(faulty[:_SHOWN]),
    )
