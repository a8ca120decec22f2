"""Pictures with four labelled regions each, drawn by number: noise of another strength in each quarter."""

import numpy as np

from distill.data.labelled_regions import LabelledRegion, RegionExamples
from teachers.seagull.tuning import RegionLabels

SIDE = 96


def quarter(number: int) -> np.ndarray:
    """Mask of a quarter of a picture, in reading order."""
    mask = np.zeros((SIDE, SIDE), dtype=np.bool_)
    half, (row, column) = SIDE // 2, divmod(number, 2)
    mask[row * half : (row + 1) * half, column * half : (column + 1) * half] = True
    return mask


def noisy_quarters(pictures: int, seed: int = 0) -> RegionExamples:
    """Coloured squares; quality is 1 minus the strength of the noise, importance the brightness of the quarter."""
    images: dict[str, np.ndarray] = {}
    regions: list[LabelledRegion] = []
    for picture in range(pictures):
        generator = np.random.default_rng([seed, picture])
        plain = np.kron(generator.integers(60, 196, (6, 6, 3)), np.ones((16, 16, 1)))
        name = f"picture-{picture}"
        for number in range(4):
            strength, mask = float(generator.uniform()), quarter(number)
            plain[mask] += generator.normal(0, 120 * strength, plain.shape)[mask]
            labels = RegionLabels(quality=1 - strength, importance=float(plain[mask].mean() / 255), type="noise")
            regions.append(
                LabelledRegion(name, name, lambda number=number: quarter(number), labels, f"quarter-{number}")
            )
        images[name] = plain.clip(0, 255).astype(np.uint8)
    return RegionExamples(regions, images.__getitem__, {"licence": "drawn"})
