import numpy as np
import pytest

from tests.teachers.qfm_iqm.tiny_qfm import picture


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    """Images of one size and different content; not to be changed."""
    return [picture(seed) for seed in range(5)]
