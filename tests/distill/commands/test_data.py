"""``pool``, ``distort``, ``label``, ``fuse`` and ``audit``: defaults, old option names, exit status."""

from pathlib import Path

import pytest

from distill.cli import app
from distill.terminal.console import run_cli
from pseudo_labels.defaults import DISTORTED_PER_IMAGE, MAX_BAD_FRACTION, NEAR_DUPLICATE_DISTANCE
from pseudo_labels.pool import Pool
from pseudo_labels.store import LabelStore
from students.runtime import Scorer
from tests.helpers.pools import write_photographs


def pocketiqa(*words: object) -> int:
    return run_cli(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_photographs(folder / "photographs", images=2, max_side=80)
    assert pocketiqa("pool", folder / "photographs", "--out", folder / "pool") == 0
    return folder / "pool"


def test_defaults_are_those_of_the_functions(pool: Path, tmp_path: Path):
    spec = Pool.open(pool).manifest.spec
    assert spec["near_distance"] == NEAR_DUPLICATE_DISTANCE
    assert pocketiqa("distort", pool, "--out", tmp_path / "distorted", "--workers", 1) == 0
    copies = [ref for ref in Pool.open(tmp_path / "distorted") if ref.ref_id]
    assert len(copies) == 2 * DISTORTED_PER_IMAGE
    assert MAX_BAD_FRACTION == 0.5


def test_old_names_of_options_are_read_with_a_note(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    photographs = pool.parent / "photographs"
    words = ("pool", photographs, "--out", tmp_path / "pool", "--near-distance", 2, "--max-bad-share=0.1")
    assert pocketiqa(*words) == 0
    notes = " ".join(capsys.readouterr().err.split())
    assert "'--near-distance' is called '--near-duplicate-distance' now" in notes
    assert "'--max-bad-share' is called '--max-bad-fraction' now" in notes
    assert Pool.open(tmp_path / "pool").manifest.spec["near_distance"] == 2


def test_too_many_bad_files_end_the_command(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "mixed"
    write_photographs(folder, images=1)
    (folder / "bad.jpg").write_bytes(b"no picture")
    assert pocketiqa("pool", folder, "--out", tmp_path / "pool", "--max-bad-fraction", 0.4) == 1
    assert "1 of 2" in capsys.readouterr().err


def test_labels_are_audited_and_an_altered_shard_is_exit_1(pool: Path, tmp_path: Path):
    labels = tmp_path / "labels"
    teacher = "tests.helpers.own_teacher:build"
    assert pocketiqa("label", pool, "--teacher", teacher, "--out", labels, "--shards", 2) == 0
    assert LabelStore.open(labels).spec.rows == 2
    assert pocketiqa("audit", labels) == 0
    shard = labels / "shard-00000" / "labels.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert pocketiqa("audit", labels) == 1


def test_a_preview_needs_no_pool_and_replaces_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"mine")
    assert pocketiqa("distort", "--preview", "--out", sheet) == 1
    assert sheet.read_bytes() == b"mine"
    assert pocketiqa("distort") == 2
    assert "name a pool and an --out folder, or ask for --preview" in " ".join(capsys.readouterr().err.split())


def test_a_single_store_is_fused_only_when_that_is_said(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    labels = tmp_path / "labels"
    assert pocketiqa("label", pool, "--teacher", "tests.helpers.own_teacher:build", "--out", labels) == 0
    assert pocketiqa("fuse", labels, "--out", tmp_path / "fused", "--calibrate", "none") == 1
    assert "min" in capsys.readouterr().err


def test_a_student_labels_a_pool_as_it_scores(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert pocketiqa("label", pool, "--teacher", "pocket-s-int8", "--out", tmp_path / "labels", "--claim") == 0
    store, scorer = LabelStore.open(tmp_path / "labels"), Scorer("pocket-s-int8")
    expected = [scorer.score(Pool.open(pool).read(ref)).score for ref in Pool.open(pool)]
    assert store.labels()["score"].to_pylist() == pytest.approx(expected, abs=1e-6)
    stamp = store.spec.stamp
    assert (stamp.name, stamp.weights) == (scorer.contract.name, scorer.digest)
    assert pocketiqa("label", pool, "--teacher", "none.onnx", "--out", tmp_path / "none") == 1
    assert "no student at none.onnx" in capsys.readouterr().err
