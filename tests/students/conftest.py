from pathlib import Path

import pytest
from PIL import Image

from students.runtime import Scorer
from tests.helpers.tiny_students import export_tiny, photographs


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny student, exported."""
    return export_tiny(tmp_path_factory.mktemp("onnx") / "tiny.onnx").path


@pytest.fixture(scope="session")
def scorer(tiny_onnx: Path) -> Scorer:
    return Scorer(tiny_onnx)


@pytest.fixture(scope="session")
def photo_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The photographs as JPEG files."""
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / f"photo {index}.jpg" for index in range(len(photographs()))]
    for path, image in zip(paths, photographs(), strict=True):
        Image.fromarray(image).save(path, quality=90)
    return paths
