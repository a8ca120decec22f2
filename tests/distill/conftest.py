from pathlib import Path

import pytest

from distill.stages.context import Run, open_run
from distill.stages.pipeline import run_recipe
from tests.helpers.pools import write_photographs

SETTINGS = (
    "distort.per_image=2",
    "distill.steps=4",
    "distill.validate_every_steps=2",
    "distill.optimizer.warmup_steps=1",
)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of the recipe ``tiny`` over six photographs; tests only read it."""
    folder = tmp_path_factory.mktemp("tiny")
    write_photographs(folder / "photographs", images=6, max_side=96)
    settings = [*SETTINGS, f'pool.sources=["{folder / "photographs"}"]']
    run_recipe("tiny", out=folder / "run", settings=settings)
    return open_run("tiny", Path(folder / "run"), settings)
