"""One small comparison that all tests of this folder read."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distill.trust.run import trust
from students.meaning.intervals import Intervals, Spread
from students.meaning.model_record import ModelName
from students.runtime import Scorer
from tests.helpers.pools import write_photographs
from tests.helpers.tiny_students import export_tiny

DARKNESS = "tests.teachers.test_plain:darkness"


@dataclass(frozen=True)
class Compared:
    """A finished comparison.

    Attributes:
        result: its figures.
        out: its page.
        student: the model file.
        words: its arguments but for the page.
    """

    result: dict[str, Any]
    out: Path
    student: Path
    words: dict[str, Any]


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """A tiny student and a function on one photograph; it and two more are rated."""
    folder = tmp_path_factory.mktemp("trust")
    student = export_tiny(folder / "tiny.onnx").path
    files = write_photographs(folder / "photographs", images=3, max_side=72)
    lines = ["image,mos,subset", *(f"{os.path.relpath(file, folder)},0.{at}5,odd" for at, file in enumerate(files))]
    (folder / "rated.csv").write_text("\n".join(lines))
    record = Intervals(ModelName("tiny", Scorer(student).digest), "tests", 10, 10, Spread(), {80: 0.2, 95: 1.0})
    (folder / "tiny.intervals.json").write_bytes(record.to_bytes())
    words = {
        "models": [str(student), DARKNESS],
        "photographs": [folder / "photographs"],
        "first": 1,
        "ratings": f"csv:{folder / 'rated.csv'}",
        "scores": folder / "scores",
    }
    out = folder / "page.html"
    return Compared(trust(out=out, picture=folder / "page.png", **words), out, student, words)
