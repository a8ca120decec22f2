"""``compare-folders``: changes, statuses, formats, the page, and what is refused."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from distill.cli import app
from distill.scoring.before_after import compared
from distill.scoring.pairing import Pair
from distill.terminal.console import run_cli
from pseudo_labels.files import read_record
from pseudo_labels.records import Status
from students.runtime import Row, Scorer
from tests.helpers.markup import parsed
from tests.helpers.tiny_students import photographs


def pocketiqa(*words: object) -> int:
    return run_cli(app, ["compare-folders", *(str(word) for word in words), "--model", "pocket-s"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Six photographs, blurred afterwards; one that is broken before, and one in each folder without a partner."""
    root = tmp_path_factory.mktemp("folders")
    for number in range(6):
        image = Image.fromarray(np.ascontiguousarray(photographs()[number % 3][:128, 20 * number : 20 * number + 160]))
        for folder, saved in (("before", image), ("after", image.filter(ImageFilter.GaussianBlur(number)))):
            (root / folder).mkdir(exist_ok=True)
            saved.save(root / folder / f"{number}.png")
    for name in ("before/broken.png", "after/broken.png", "before/alone.png", "after/other.png"):
        (root / name).write_bytes((root / "before/0.png").read_bytes()[: 900 if name.startswith("before/b") else None])
    return root / "before", root / "after"


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl"])
def test_changes_are_differences_of_scores_and_nothing_is_lost(
    folders: tuple[Path, Path], tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / f"changes.{ending}"
    assert pocketiqa(*folders, "--out", out) == 1
    if ending == "csv":
        rows = [dict(row) for row in csv.DictReader(out.read_text().splitlines())]
    elif ending == "json":
        record = read_record(out, what="comparison")
        rows, summary = record["rows"], record["summary"]
        assert record["kind"] == "comparison"
        changes = [row["change"] for row in rows if row["change"] is not None]
        assert summary["mean_change"] == pytest.approx(np.mean(changes))
        assert summary["without"] == {"corrupt": 1, "missing": 2}
        assert (summary["pairs"], summary["scenes"], summary["equal"]) == (6, 6, 1)
        assert summary["low"] <= summary["mean_change"] <= summary["high"]
    else:
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 9
    scorer = Scorer("pocket-s")
    good = [row for row in rows if row["status"] == "ok"]
    for row in good:
        before, after = (scorer.score(folder / row["name"]).score for folder in folders)
        assert float(row["before"]) == pytest.approx(before, abs=1e-6)
        assert float(row["change"]) == pytest.approx(after - before, abs=2e-6)
    values = [float(row["change"]) for row in good]
    assert values == sorted(values)
    statuses = {row["name"]: (row["status"], row["reason"]) for row in rows[6:]}
    assert statuses["broken.png"][0] == "corrupt"
    assert statuses["broken.png"][1].startswith("before: ")
    assert statuses["alone.png"] == ("missing", f"no file of this name in {folders[1]}")
    assert statuses["other.png"] == ("missing", f"no file of this name in {folders[0]}")
    said = capsys.readouterr().err
    assert "2 files without a partner: alone.png, other.png" in said
    assert "1 pair without a score" in said
    assert "mean change" in said
    assert "sign test p = " in said


def test_the_page_needs_nothing_but_itself_and_shows_the_worst_first(folders: tuple[Path, Path], tmp_path: Path):
    out, page = tmp_path / "a.json", tmp_path / "page.html"
    pocketiqa(*folders, "--out", out, "--gallery", page, "--worst", 2)
    text = page.read_text("utf-8")
    assert "http" not in text
    tags = parsed(text).tags
    assert not {name for name, _ in tags} & {"script", "link", "iframe"}
    names = [row["name"] for row in read_record(out, what="comparison")["rows"]]
    pictures = [str(attributes["alt"]) for name, attributes in tags if name == "img"]
    assert pictures[:4] == [f"{name}, {when}" for name in names[:2] for when in ("before", "after")]
    assert "alone.png" in text
    assert "The 2 worst changes" in text


def test_files_are_never_replaced_unasked(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    page = tmp_path / "page.html"
    page.write_text("mine")
    out = tmp_path / "a.csv"
    assert pocketiqa(*folders, "--out", out, "--gallery", page) == 1
    assert "page.html exists already" in capsys.readouterr().err
    assert (page.read_text(), out.exists()) == ("mine", False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gallery", "page.png"], "the page is HTML, name it page.html"),
        (["--worst", "0"], "at least 1"),
        (["--out", "a.xls"], "names no format"),
        (["--pairs", "nothing.csv"], "nothing.csv cannot be read"),
    ],
)
def test_what_cannot_be_is_refused(
    folders: tuple[Path, Path], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert pocketiqa(*folders, *words) == 1
    assert message in capsys.readouterr().err


def test_folders_without_a_common_name_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "x.png").write_bytes((folders[0] / "0.png").read_bytes())
    assert pocketiqa(folders[0], tmp_path) == 1
    assert "has the name of one of" in capsys.readouterr().err


def test_pairs_of_a_table_may_name_a_file_twice(folders: tuple[Path, Path], tmp_path: Path):
    table, out = tmp_path / "pairs.csv", tmp_path / "a.json"
    table.write_text("0.png,0.png\n0.png,5.png\n1.png,nothing.png\n")
    assert pocketiqa(*folders, "--pairs", table, "--out", out) == 1
    record = read_record(out, what="comparison")
    assert [row["group"] for row in record["rows"]] == ["0.png", "0.png", "1.png"]
    assert record["rows"][2]["status"] == "missing"
    assert record["summary"]["scenes"] == 1
    assert "1 groups" in record["summary"]["interval_reason"]


def test_changes_below_0_are_numbers_for_a_spreadsheet_and_names_are_no_formulas(tmp_path: Path):
    for folder, number in (("before", 0), ("after", 1)):
        (tmp_path / folder).mkdir()
        image = Image.fromarray(photographs()[2]).filter(ImageFilter.GaussianBlur(4 * number))
        image.save(tmp_path / folder / "=1+2.png")
        image.save(tmp_path / folder / os.fsdecode(b"bad\xff.png"))
    out = tmp_path / "a.csv"
    assert pocketiqa(tmp_path / "before", tmp_path / "after", "--out", out, "--excel-safe") == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert {row["name"] for row in rows} == {"'=1+2.png", "bad\\udcff.png"}
    assert all(float(row["change"]) < 0 for row in rows)


def test_of_two_faults_the_status_is_the_first_photograph_s():
    pair = Pair("a", Path("b"), Path("c"), "a")
    rows = {Path("b"): Row("b", None, Status.EMPTY, "zero bytes"), Path("c"): Row("c", None, Status.MISSING, "gone")}
    (row,) = compared([pair], rows).rows
    assert (row.status, row.reason) == (Status.EMPTY, "before: zero bytes; after: gone")
