"""The limits that a student must keep to be shipped, in one place, and the verdict on each."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.stress.measure import StressResult


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
        Verdict("pairs of strengths ordered rightly", result.ordering.share, limits.least_ordered, at_least=True),
        Verdict("originals that their worst copy beats", result.ordering.originals_beaten, limits.most_beaten),
        Verdict("spread between sizes, mean", result.sizes.mean_spread, limits.most_size_spread),
        Verdict("turned by EXIF against upright", formats.exif, limits.most_format_difference),
        Verdict("JPEG of quality 100 against PNG", formats.jpeg, limits.most_format_difference),
        Verdict("RGBA against RGB", formats.alpha, limits.most_format_difference),
        Verdict("odd images out of range", odd.out_of_range, limits.most_odd_faults),
        Verdict("odd images not repeatable", odd.unrepeatable, limits.most_odd_faults),
        Verdict("odd images, between batch sizes", odd.batch_difference, limits.most_batch_difference),
        Verdict("damaged quarters pointed at", result.pointing.share, limits.least_pointed, at_least=True),
    ]
