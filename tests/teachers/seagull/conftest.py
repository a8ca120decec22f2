import numpy as np
import pytest

from teachers.seagull.build import build_seagull
from teachers.seagull.teacher import SeagullTeacher
from tests.teachers.seagull.published import ALL_QUESTIONS


@pytest.fixture(scope="session")
def teacher() -> SeagullTeacher:
    """The tiny teacher with random weights in float32, which asks everything; not to be changed."""
    return build_seagull(variant="tiny", pretrained=False, precision="fp32", questions=ALL_QUESTIONS, most_tokens=6)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """An image of 90 x 140 pixels with structure; not to be changed."""
    rng = np.random.default_rng(3)
    return np.kron(rng.integers(0, 256, (9, 14, 3), dtype=np.uint8), np.ones((10, 10, 1), np.uint8))
