from pathlib import Path

import pytest

from students.formats.convert import FloatStudent, read_float
from tests.helpers.tiny_students import export_tiny


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("float") / "tiny.onnx").path


@pytest.fixture(scope="session")
def tiny_float(tiny_file: Path) -> FloatStudent:
    return read_float(tiny_file)
