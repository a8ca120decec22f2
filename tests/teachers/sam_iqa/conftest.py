from pathlib import Path

import numpy as np
import pytest

from tests.teachers.sam_iqa.tiny_sam import save_sam


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny encoder; not to be changed."""
    return save_sam(tmp_path_factory.mktemp("sam") / "sam_tiny.pth")


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    """Images of different sizes and content, coarse enough to survive resizing; not to be changed."""
    rng = np.random.default_rng(0)
    sizes = [(150, 200), (130, 130), (90, 60), (300, 220), (60, 260)]
    coarse = [rng.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8) for height, width in sizes]
    return [np.kron(image, np.ones((10, 10, 1), np.uint8)) for image in coarse]
