"""Real photographs, small enough that hundreds of distortions take seconds."""

import numpy as np
import pytest
import skimage.data
from PIL import Image


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A face, a flag and a space suit, 192x160; read-only, so that an operator that writes into it is found out."""
    return _small(skimage.data.astronaut(), (192, 192))[:160]


@pytest.fixture(scope="session")
def cat() -> np.ndarray:
    """Fur and eyes, 226x150."""
    return _small(skimage.data.chelsea(), (226, 150))


def _small(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    small = np.array(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))
    small.setflags(write=False)
    return small
