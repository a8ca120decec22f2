from pathlib import Path

import pytest

from distill.data.examples import Source
from distill.data.pixel_cache import PixelCache, build_pixels
from distill.stages.context import Run, open_run
from distill.stages.pipeline import run_recipe
from pseudo_labels.pool import Pool
from students.preprocess import Preprocess
from tests.helpers.pools import write_photographs
from tests.helpers.training import texture_pool, texture_store

SETTINGS = (
    "distort.per_image=2",
    "distill.steps=4",
    "distill.validate_every_steps=2",
    "distill.optimizer.warmup_steps=1",
)


REGIONS = (
    "distort.max_side=null", "regions={by: 'grid:3x2', per_image: 2, names: [white_noise], "
    "teacher_options: {metrics: gmsd}}", "label.options={metrics: gmsd}", "distill.images.crop_size=null",
    "distill.losses={region_quality: 1.0, region_importance: 1.0, region_ranking: 1.0}", "distill.batch_size=4",
)  # fmt: skip


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of the recipe ``tiny`` over six photographs; tests only read it."""
    folder = tmp_path_factory.mktemp("tiny")
    write_photographs(folder / "photographs", images=6, max_side=96)
    settings = [*SETTINGS, f'pool.sources=["{folder / "photographs"}"]']
    run_recipe("tiny", out=folder / "run", settings=settings)
    return open_run("tiny", Path(folder / "run"), settings)


@pytest.fixture(scope="session")
def region_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run whose student learned regions; tests only read it."""
    folder = tmp_path_factory.mktemp("regions")
    write_photographs(folder / "photographs", images=5, max_side=128)
    settings = [*SETTINGS, *REGIONS, f'pool.sources=["{folder / "photographs"}"]']
    run_recipe("tiny", out=folder / "run", settings=settings)
    return open_run("tiny", folder / "run", settings)


@pytest.fixture(scope="session")
def example_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 textures of three sizes in six scenes, their labels and their pixels."""
    folder = tmp_path_factory.mktemp("data")
    pool = texture_pool(folder, scenes=6, versions=4, sizes=((80, 96), (64, 64), (96, 70)))
    texture_store(folder / "labels", pool)
    build_pixels(pool, Preprocess(max_side=96), folder / "cache")
    return folder


@pytest.fixture
def pool(example_data: Path) -> Pool:
    return Pool.open(example_data / "pool")


@pytest.fixture
def cache(example_data: Path, pool: Pool) -> PixelCache:
    return build_pixels(pool, Preprocess(max_side=96), example_data / "cache")


@pytest.fixture
def source(example_data: Path, pool: Pool, tmp_path: Path) -> Source:
    return Source("teacher", pool, texture_store(tmp_path / "labels", pool))
