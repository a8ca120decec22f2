import pytest

from pseudo_labels.fusion.fuse import fuse
from pseudo_labels.pool import Pool
from pseudo_labels.store import LabelStore
from tests.helpers.fusing import teacher_store
from tests.helpers.pools import synthetic_pool
from tests.helpers.training import texture_pool
from tests.pseudo_labels.audit.stores import NOISE, RULE, TRUTH, scores_of


@pytest.fixture(scope="package")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Three originals, each with nine distorted versions."""
    names = ("gaussian_blur", "jpeg", "white_noise")
    return synthetic_pool(tmp_path_factory.mktemp("pool"), images=3, per_image=9, max_side=64, names=names)


@pytest.fixture(scope="package")
def fused_pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return texture_pool(tmp_path_factory.mktemp("data"), scenes=12)


@pytest.fixture(scope="package")
def fused(fused_pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> LabelStore:
    """The fusion of three teachers of ``fused_pool``."""
    folder = tmp_path_factory.mktemp("stores")
    parts = [
        teacher_store(folder / name[:4], fused_pool, scores_of(name), name=name, shards=3).folder for name in NOISE
    ]
    ratings = {ref.id: float(rating) for ref, rating in zip(fused_pool, TRUTH, strict=True)}
    return fuse(parts, folder / "fused", ratings=ratings, rule=RULE)
