"""The commands one after another, as a user types them, and what they say when something is wrong."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from distill.cli import app
from distill.terminal import console
from tests.helpers.pools import write_photographs

SMALL = ("distort.per_image=2", "distill.steps=4", "distill.validate_every_steps=2", "distill.optimizer.warmup_steps=1")


def pocketiqa(*words: object) -> int:
    return console.run_cli(app, [str(word) for word in words])


def run_tiny(photographs: Path, out: Path, *words: object) -> int:
    settings = [word for setting in (*SMALL, f'pool.sources=["{photographs}"]') for word in ("--set", setting)]
    return pocketiqa("run", "tiny", "--out", out, *settings, *words)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, images=6, max_side=96)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Path:
    """A run of the tiny recipe."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert run_tiny(photographs, out) == 0
    return out


def test_run_walks_all_stages(finished: Path):
    for folder in ("pool", "synthetic", "labels", "training", "export", "evaluation", "demonstration", "report"):
        assert json.loads((finished / folder / "manifest.json").read_text())["complete"], folder
    page = (finished / "report" / "report.html").read_text("utf-8")
    assert "tiny-student" in page
    assert "http" not in page


def test_run_again_skips_everything_and_changes_no_byte(
    finished: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    assert run_tiny(photographs, finished) == 0
    assert capsys.readouterr().out.count("unchanged, skipped") == 8
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


def test_a_changed_setting_is_refused_and_named_until_overwrite_is_said(
    finished: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
):
    assert run_tiny(photographs, finished, "--set", "score.level=3.0") == 1
    message = capsys.readouterr().err
    assert "settings.level: 4.0 -> 3.0" in message
    assert "--overwrite" in message
    assert run_tiny(photographs, finished, "--set", "score.level=3.0", "--overwrite") == 0
    printed = capsys.readouterr()
    assert printed.out.count("unchanged, skipped") == 6  # all but the demonstration and the report that shows it
    assert "score is made anew" in printed.err


def test_the_stages_as_single_commands(tmp_path: Path, photographs: Path, capsys: pytest.CaptureFixture[str]):
    pool, synthetic, labels = tmp_path / "pool", tmp_path / "synthetic", tmp_path / "labels"
    assert pocketiqa("pool", photographs, "--out", pool) == 0
    assert "6 images (6 ok) of 6 scenes" in capsys.readouterr().out
    distort = ("distort", pool, "--out", synthetic, "--per-image", 2, "--only", "jpeg", "--workers", 1)
    assert pocketiqa(*distort, "--seed", 3) == 0
    assert pocketiqa(*distort, "--seed", 4) == 1
    assert "seed: 3 -> 4" in capsys.readouterr().err
    assert pocketiqa("label", synthetic, "--teacher", "reference", "--out", labels, "--shards", 2) == 0
    assert pocketiqa("audit", labels, "--out", tmp_path / "audit.html") == 0
    assert "without fault" in capsys.readouterr().out
    cropped = ("label", synthetic, "--teacher", "reference", "--out", tmp_path / "crops")
    assert pocketiqa(*cropped, "--crop", "smallest=0.9", "--crop", "largest=1.0") == 0
    assert pocketiqa(*cropped, "--crop", "smalest=0.9") == 1
    assert "--crop: unknown key 'smalest'; did you mean 'smallest'?" in capsys.readouterr().err.replace("\n", " ")
    assert pocketiqa(*cropped, "--crop", "smallest=0.95") == 1
    assert "crops from 0.95 to 0.9 of a side" in capsys.readouterr().err.replace("\n", " ")
    shard = labels / "shard-00001" / "labels.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert pocketiqa("audit", labels) == 1
    assert "shard 1" in capsys.readouterr().out
    assert pocketiqa("label", synthetic, "--teacher", "reference", "--out", labels, "--shards", 2) == 0
    assert pocketiqa("audit", labels) == 0


def test_distill_trains_from_labels_that_are_there(tmp_path: Path, finished: Path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: other\nout: {tmp_path / 'out'}\n"
        f"sources: [{{pool: {finished / 'synthetic'}, labels: {finished / 'labels'}}}]\n"
        "distill: {student: {name: mobilenetv4_conv_small_035, max_side: 96, head_width: 16}, steps: 2, batch_size: 4,"
        " images: {crop_size: 64}, split: {validation: 0.3}, optimizer: {warmup_steps: 1}, tracker: none}\n"
    )
    assert pocketiqa("distill", recipe) == 0
    exported = tmp_path / "other.onnx"
    assert pocketiqa("export", tmp_path / "out" / "training", "--out", exported) == 0
    assert pocketiqa("export", tmp_path / "out" / "training", "--out", exported) == 1  # it is there already
    assert pocketiqa("export", tmp_path / "out" / "training", "--out", exported, "--overwrite") == 0


def test_evaluate_on_a_csv_of_ratings(
    tmp_path: Path, finished: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [(path, number / 10) for number, path in enumerate(sorted(photographs.glob("*.png")), start=1)]
    ratings = tmp_path / "ratings.csv"
    ratings.write_text("image,mos\n" + "".join(f"{path},{mos}\n" for path, mos in rows))
    model, out = finished / "export" / "tiny-student.onnx", tmp_path / "result.json"
    words = ("--on", f"csv:{ratings}", "--trained-on", finished / "pool", "--out", out)
    assert pocketiqa("evaluate", model, *words) == 0
    assert "SRCC" in capsys.readouterr().out
    result = json.loads(out.read_text())
    assert result["selections"]["all"]["n"] == 6
    assert result["overlap"]["same_file"] == 6  # it was trained on these very files


def test_a_model_that_scores_nothing_is_a_failure_with_a_reason(
    tmp_path: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
):
    ratings = tmp_path / "ratings.csv"
    ratings.write_text("image,mos\n" + "".join(f"{path},0.5\n" for path in photographs.glob("*.png")))
    assert pocketiqa("evaluate", "reference", "--on", f"csv:{ratings}") == 1
    assert "reference has no score for 6 of 6 images" in capsys.readouterr().err


def test_score_writes_a_row_for_every_path(
    tmp_path: Path, finished: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "broken.jpg").write_text("no image")
    out, model = tmp_path / "scores.csv", finished / "export" / "tiny-student.onnx"
    words = ("score", photographs, "--model", model, "--format", "csv", "--out", out)
    assert pocketiqa(*words) == 0
    assert pocketiqa(*words) == 1  # the file is there
    assert "--overwrite" in capsys.readouterr().err
    assert pocketiqa(*words, "--overwrite", "--workers", 2, tmp_path / "broken.jpg") == 1
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["ok"] * 6 + ["not_an_image"]
    assert all(0 <= float(row["score"]) <= 1 for row in rows[:6])


def test_distort_preview_draws_a_contact_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert pocketiqa("distort", "--preview", "--out", tmp_path / "sheet.png") == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 500


def test_doctor_lists_versions_and_teachers(capsys: pytest.CaptureFixture[str]):
    assert pocketiqa("doctor") == 0
    printed = capsys.readouterr().out
    assert "onnxruntime" in printed
    assert "reference" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pool", "/nowhere", "--out", "{out}"), "/nowhere"),
        (("distort", "/nowhere", "--out", "{out}"), "/nowhere"),
        (("distort",), "--preview"),
        (("label", "/nowhere", "--teacher", "reference", "--out", "{out}"), "/nowhere"),
        (("audit", "/nowhere"), "/nowhere"),
        (("distill", "nonsense"), "nonsense"),
        (("run", "quickstart", "--set", "distill.stepz=3", "--out", "{out}"), "stepz"),
        (("evaluate", "nonsense", "--on", "csv:/nowhere.csv"), "nonsense"),
        (("evaluate", "pocket-m", "--on", "csv:/nowhere.csv"), "nowhere"),
        (("export", "/nowhere", "--out", "{out}.onnx"), "/nowhere"),
        (("score", "a.jpg", "--model", "/nowhere.onnx"), "/nowhere.onnx"),
        (("score", "a.jpg", "--model", "pocket-x"), "no model at pocket-x"),
    ],
)
def test_a_users_error_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
):
    status = 2 if words == ("distort",) else 1  # the only one that is about the command line itself
    assert pocketiqa(*(word.replace("{out}", str(tmp_path / "out")) for word in words)) == status
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert message in lines[-1]
    assert "Traceback" not in "".join(lines)


def test_an_unknown_teacher_lists_the_known(tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]):
    assert pocketiqa("label", finished / "synthetic", "--teacher", "refrence", "--out", tmp_path / "x") == 1
    assert "reference" in capsys.readouterr().err
