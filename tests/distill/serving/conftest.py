from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from distill.serving.app import ServerSettings, create_app
from students.runtime import Scorer
from tests.helpers.training import texture


@pytest.fixture(scope="session")
def scorer() -> Scorer:
    return Scorer("pocket-s")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with two photographs, a broken file, and a link that leads out of it."""
    folder = tmp_path / "root"
    (folder / "below").mkdir(parents=True)
    Image.fromarray(texture(1, 3, (96, 112))).save(folder / "a.png")
    Image.fromarray(texture(2, 9, (96, 112))).save(folder / "below" / "b.png")
    (folder / "bad.png").write_bytes(b"no picture")
    (tmp_path / "outside.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    return folder


@pytest.fixture
def client(scorer: Scorer, root: Path) -> Iterator[TestClient]:
    settings = ServerSettings(root=root, max_bytes=100_000, max_images=3, seconds=5.0)
    with TestClient(create_app(scorer, settings), base_url="http://127.0.0.1:8000") as client:
        yield client
