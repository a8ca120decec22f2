"""Does the quality map point at the distortion? One quarter of a photograph is distorted, the rest stays."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean

import numpy as np

from distill.stress.photograph import Photograph
from students.runtime import Scorer

DISTORTIONS = ("gaussian_blur", "white_noise")
# As in the demonstration of a recipe: a person sees it at once.
LEVEL = 4
QUARTERS = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}
_SHOWN = 10


@dataclass(frozen=True)
class Pointed:
    """One distorted quarter of one photograph.

    Attributes:
        photograph: name of the photograph.
        distortion: name in the catalogue of distortions.
        quarter: one of ``QUARTERS``.
        drop_there: difference of the mean of the quality map between the clean photograph and this one, over the cells
            that lie in the quarter; positive where the map falls.
        drop_elsewhere: that difference over the cells that lie outside; cells on the border count in neither.
    """

    photograph: str
    distortion: str
    quarter: str
    drop_there: float
    drop_elsewhere: float

    @property
    def right(self) -> bool:
        """Whether the map is lowered in the quarter, and more than elsewhere."""
        # Elsewhere the map may fall too, as cells see beyond their borders; it has to fall more in the quarter.
        return self.drop_there > max(0.0, self.drop_elsewhere)


@dataclass(frozen=True)
class Pointing:
    """Fractions of cases in which the map points at the distortion.

    Attributes:
        fraction: fraction of the cases that are right; a case is a photograph, a distortion and a quarter.
        fraction_by_distortion: that fraction for each distortion.
        worst: wrong cases, those first in which the drop elsewhere is larger by most.
    """

    fraction: float
    fraction_by_distortion: dict[str, float]
    worst: tuple[Pointed, ...]


def pointed(scorer: Scorer, photograph: Photograph) -> list[Pointed]:
    """Distort each quarter of a photograph by each distortion.

    Raises:
        ImageError: the model gives no finite score.
    """
    clean = scorer.score(photograph.rgb).quality_map
    quarters = []
    for distortion, (name, quarter) in product(DISTORTIONS, QUARTERS.items()):
        picture = in_quarter(photograph.rgb, photograph.distorted(distortion, LEVEL), quarter)
        # float64: the drop is a small difference of two float32 maps, averaged over many cells.
        drop = clean.astype(np.float64) - scorer.score(picture).quality_map
        there, elsewhere = cells(drop.shape, quarter)
        quarters.append(
            Pointed(photograph.name, distortion, name, float(drop[there].mean()), float(drop[elsewhere].mean()))
        )
    return quarters


def pointing(quarters: Sequence[Pointed]) -> Pointing:
    """Summarise cases, at least one."""
    right: dict[str, list[bool]] = {}
    for case in quarters:
        right.setdefault(case.distortion, []).append(case.right)
    wrong = [case for case in quarters if not case.right]
    wrong.sort(key=lambda case: case.drop_there - case.drop_elsewhere)
    return Pointing(
        fraction=fmean(case.right for case in quarters),
        fraction_by_distortion={distortion: fmean(cases) for distortion, cases in right.items()},
        worst=tuple(wrong[:_SHOWN]),
    )


def in_quarter(clean: np.ndarray, distorted: np.ndarray, quarter: tuple[int, int]) -> np.ndarray:
    """The clean picture, HxWx3, with one quarter of the distorted one; ``quarter`` is (row, column), each 0 or 1."""
    rows, columns = (slice(*edges(side, half)) for side, half in zip(clean.shape[:2], quarter, strict=True))
    picture = clean.copy()
    picture[rows, columns] = distorted[rows, columns]
    return picture


def edges(side: int, half: int) -> tuple[int, int]:
    """Start and stop of the pixels or cells that lie wholly in the first (0) or second (1) half of a side."""
    # The middle of an odd side lies wholly in neither half.
    return (0, side // 2) if half == 0 else (side - side // 2, side)


def cells(shape: tuple[int, ...], quarter: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Which cells of a map of ``shape`` (h, w) lie wholly in a quarter, and which wholly outside: two bool [h, w]."""
    inside, outside = np.zeros(shape, bool), np.zeros(shape, bool)
    rows, columns = ([slice(*edges(side, half)) for half in (0, 1)] for side in shape)
    row, column = quarter
    inside[rows[row], columns[column]] = True
    # The other half of either side; the middle cells of an odd side lie in both halves, and in neither list.
    outside[rows[1 - row]] = True
    outside[:, columns[1 - column]] = True
    return inside, outside
