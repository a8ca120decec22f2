import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from distill.comparison.compare import ACCURACY, PREDICTED, RECORD, TABLE, TIMES, compare
from distill.comparison.table import gain_sentence, header, rows_of
from distill.html.tables import si
from pseudo_labels.errors import IntegrityError, OutputConflictError
from pseudo_labels.files import exclusive
from tests.helpers.records import alter, rewrite
from tests.helpers.tiny_students import export_tiny
from tests.helpers.training import texture

OWN = "tests.helpers.own_teacher:build"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rated folder, two students, and a comparison."""
    folder = tmp_path_factory.mktemp("comparison")
    with open(folder / "ratings.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mos", "subset", "near_train"])
        for number in range(24):
            name = f"{number}.png"
            Image.fromarray(texture(number, 4 * (number % 8), (80, 96))).save(folder / name)
            writer.writerow([name, 1 - number % 8 / 10, "even" if number % 2 else "odd", int(number > 20)])
    for seed in (0, 1):
        export_tiny(folder / f"tiny-{seed}.onnx", metrics={"seed": seed})
    written(folder)
    return folder


def written(folder: Path, **changes: Any) -> Path:
    tree = {
        "name": "small",
        "out": str(folder / "out"),
        "benchmark": {"ratings": f"csv:{folder / 'ratings.csv'}", "split": "all"},
        "rows": [
            {"name": "contrast", "models": [OWN], "time": True},
            {"name": "students", "models": [str(folder / f"tiny-{seed}.onnx") for seed in (0, 1)], "time": True},
            {"name": "others", "models": [str(folder / f"tiny-{seed}.onnx") for seed in (1, 0)]},
            {"name": "theirs", "published": {"srcc": 0.9, "images": "all of it", "source": "a paper"}},
        ],
        "gains": [{"row": "students", "over": "contrast"}],
        "plotted": ["contrast", "students"],
        "timed_images": 4,
        **changes,
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_comparison_judges_times_and_draws(folder: Path, capsys: pytest.CaptureFixture[str]):
    compare(str(folder / "small.yaml"))
    result = json.loads((folder / "out" / RECORD).read_text())
    contrast, students, others, theirs = result["lines"]
    assert len(students["models"]) == 2
    values = [model["selections"]["clean"]["metrics"]["srcc"]["value"] for model in students["models"]]
    assert students["srcc"]["mean"] == pytest.approx(np.mean(values))
    assert contrast["models"][0]["selections"]["clean"]["n"] == 21
    assert contrast["models"][0]["selections"]["all"]["n"] == 24
    assert contrast["milliseconds"] > 0
    assert others["milliseconds"] is None
    assert theirs["published"]["srcc"] == 0.9
    assert result["gains"][0]["n"] == 2  # contrast against each of two seeds
    titles = header(result["lines"])
    assert titles[1:] == [
        "parameters",
        "SRCC, 21 clean images (95 %)",
        "all 24",
        "PLCC",
        "even",
        "odd",
        "mean of subsets",
        "ms",
    ]
    table = (folder / "out" / TABLE).read_text()
    assert "| theirs (published: a paper) |  |  | 0.9 on all of it |" in table
    assert f"students (2 seeds) | {si(students['parameters'])} | {students['srcc']['mean']:.3f}" in table
    assert gain_sentence(result["gains"][0]) in table
    assert all(len(row) == len(titles) for row in rows_of(result["lines"]))
    for name in (ACCURACY, PREDICTED):
        with Image.open(folder / "out" / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    assert "small" not in capsys.readouterr().err


def test_what_was_judged_is_not_judged_again_unless_it_changed(folder: Path, tmp_path: Path):
    rows = [
        {"name": "contrast", "models": [OWN], "time": True},
        {"name": "students", "models": [str(folder / "tiny-0.onnx")]},
    ]
    out = tmp_path / "out"
    path = written(folder, rows=rows, gains=[], plotted=[], out=str(out))
    compare(str(path))
    kept = sorted((out / "rows").rglob("predictions.json"))
    assert len(kept) == 2
    before = [path.stat().st_mtime_ns for path in kept]
    times = (out / "times" / TIMES).read_bytes()
    compare(str(path), overwrite=True)
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert (out / "times" / TIMES).read_bytes() == times
    rows = [{"name": "contrast", "models": [str(folder / "tiny-0.onnx")]}]
    changed = written(folder, rows=rows, gains=[], plotted=[], out=str(out))
    with pytest.raises(OutputConflictError):
        compare(str(changed))
    compare(str(changed), overwrite=True)
    assert kept[0].stat().st_mtime_ns != before[0]


def test_files_of_another_comparison_and_of_others_are_not_replaced(folder: Path, tmp_path: Path):
    rows = [{"name": "students", "models": [str(folder / "tiny-0.onnx")]}]
    path = written(folder, rows=rows, gains=[], plotted=[], out=str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / TABLE).write_text("years")
    with pytest.raises(OutputConflictError, match=r"comparison\.md exists already, and not from a comparison"):
        compare(str(path))
    assert [one.name for one in (tmp_path / "out").iterdir()] == [TABLE]
    compare(str(path), overwrite=True)
    rewrite(tmp_path / "out" / RECORD, name="large")
    with pytest.raises(OutputConflictError, match="holds another comparison than 'small'"):
        compare(str(path))
    alter(tmp_path / "out" / RECORD, name="small")
    with pytest.raises(IntegrityError, match=r"comparison\.json was altered.*--overwrite"):
        compare(str(path))
    with (
        exclusive(tmp_path / "out" / ".lock", what="it"),
        pytest.raises(OutputConflictError, match="another process is writing"),
    ):
        compare(str(path), overwrite=True)
