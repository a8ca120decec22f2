import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import PseudoLabel, Status
from pseudo_labels.shards import FEATURES as FEATURES_FILE
from pseudo_labels.shards import LABELS as LABELS_FILE
from pseudo_labels.shards import (
    STATS,
    find_fault,
    labels_table,
    read_features,
    read_table,
    shard_files,
    shard_name,
    shard_of,
    shard_rows,
    shard_stats,
)

FAILED = PseudoLabel("c", "c.png", status=Status.FAILED, reason="no answer", confidence=0.0)
LABELS = [PseudoLabel("a", "a.png", score=0.25, score_std=0.1), PseudoLabel("b", "b.png", score=0.75), FAILED]
FEATURES = {"map": np.arange(12.0).reshape(3, 2, 2) + 1}


def written(folder: Path) -> Path:
    folder.mkdir()
    for name, data in shard_files(LABELS, FEATURES, index=4, spec_digest="spec").items():
        (folder / name).write_bytes(data)
    return folder


def fault(folder: Path, *, index: int = 4, spec: str = "spec", rows: int = 3, features: bool = True) -> str:
    files = {LABELS_FILE, STATS, FEATURES_FILE} if features else {LABELS_FILE, STATS}
    return find_fault(folder, index=index, spec_digest=spec, rows=rows, files=files)


def test_a_shard_is_named_by_five_digits():
    assert [shard_name(0), shard_name(123)] == ["shard-00000", "shard-00123"]


def test_the_statistics_are_over_scored_rows_only():
    stats = shard_stats(labels_table(LABELS))
    assert stats["rows"] == 3
    assert stats["status"] == {"failed": 1, "ok": 2}
    assert stats["score"] == {"mean": 0.5, "std": 0.25, "min": 0.25, "max": 0.75}
    assert shard_stats(labels_table([FAILED]))["score"] == {}


def test_a_shard_is_read_back_and_every_digest_is_that_of_hashlib(tmp_path: Path):
    folder = written(tmp_path / "shard")
    assert fault(folder) == ""
    marker = json.loads((folder / "shard.json").read_text())
    assert (marker["index"], marker["rows"], marker["spec"]) == (4, 3, "spec")
    files = {path.name for path in folder.iterdir()} - {"shard.json"}
    assert marker["files"] == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    assert read_table(folder)["id"].to_pylist() == ["a", "b", "c"]
    assert pq.read_table(folder / "labels.parquet")["score"].to_pylist()[:2] == [0.25, 0.75]
    expected = FEATURES["map"].astype(np.float16)
    expected[2] = 0  # the failed row
    assert (read_features(folder)["map"] == expected).all()
    assert load_file(folder / "features.safetensors")["map"].dtype == np.float16


def test_the_same_labels_give_the_same_bytes_whatever_the_order_of_features():
    two = {"b": FEATURES["map"], "a": FEATURES["map"][:, 0]}
    first = shard_files(LABELS, two, index=0, spec_digest="spec")
    assert first == shard_files(LABELS, dict(reversed(two.items())), index=0, spec_digest="spec")
    other = shard_files(LABELS, two, index=1, spec_digest="spec")
    assert [name for name in first if first[name] != other[name]] == ["shard.json"]


@pytest.mark.parametrize("name", ["labels.parquet", "features.safetensors", "stats.json"])
def test_one_changed_or_lost_file_is_named(name: str, tmp_path: Path):
    path = written(tmp_path / "shard") / name
    path.write_bytes(path.read_bytes()[:-1] + b"~")
    assert fault(path.parent) == f"{name} does not match its recorded SHA-256"
    path.unlink()
    assert fault(path.parent) == f"{name} cannot be read (No such file or directory)"


def test_a_marker_of_something_else_is_not_trusted(tmp_path: Path):
    folder = written(tmp_path / "shard")
    for reason in (fault(folder, index=5), fault(folder, spec="other"), fault(folder, rows=2)):
        assert reason == "shard.json belongs to another shard or store"
    assert fault(folder, features=False) == (
        "shard.json lists ['features.safetensors', 'labels.parquet', 'stats.json'] "
        "instead of ['labels.parquet', 'stats.json']"
    )
    (folder / "shard.json").write_text("{")
    assert fault(folder).startswith("shard.json cannot be read (")
    (folder / "shard.json").unlink()
    assert fault(folder).startswith("shard.json cannot be read (")


@pytest.mark.parametrize(
    ("label", "named"),
    [
        (PseudoLabel("x", "x", score=1.5), r"the score of image x is 1\.5: it must be in \[0, 1\]"),
        (PseudoLabel("x", "x"), "the score of image x is nan"),
        (PseudoLabel("x", "x", score=0.5, score_std=-0.1), r"score_std of image x is -0\.1"),
        (PseudoLabel("x", "x", score=0.5, score_std=math.inf), "score_std of image x is inf"),
        (PseudoLabel("x", "x", score=0.5, confidence=2.0), r"confidence of image x is 2\.0"),
        (PseudoLabel("x", "x", status=Status.FAILED, reason="why", score=0.5), "status failed, but a score"),
        (PseudoLabel("x", "x", status=Status.FAILED), "status failed, but a score or no reason"),
    ],
)
def test_a_label_that_cannot_be_is_refused(label: PseudoLabel, named: str):
    with pytest.raises(PocketiqaError, match=named):
        labels_table([label])


def test_a_name_that_is_no_unicode_is_stored_with_escapes():
    table = labels_table([PseudoLabel("a", "caf\udce9.png", score=0.5)])
    assert table["uri"].to_pylist() == ["caf\\udce9.png"]


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(PocketiqaError, match="feature 'map' has 2 rows, but the shard has 3"):
        shard_files(LABELS, {"map": np.ones((2, 4))}, index=0, spec_digest="spec")
    features = np.ones((3, 2))
    features[1, 0] = 70_000.0
    with pytest.raises(PocketiqaError, match="'map' is not finite in fp16"):
        shard_files(LABELS, {"map": features}, index=0, spec_digest="spec")
    features[1, 0], features[2, 0] = 1.0, np.nan  # the failed row may hold anything
    assert "features.safetensors" in shard_files(LABELS, {"map": features}, index=0, spec_digest="spec")


@pytest.mark.parametrize(("rows", "shards"), [(10, 3), (7, 7), (1000, 8), (5, 1)])
def test_blocks_cover_the_rows_once_and_evenly(rows: int, shards: int):
    blocks = [shard_rows(rows, shards, index) for index in range(shards)]
    assert [row for block in blocks for row in block] == list(range(rows))
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
    assert all(shard_of(rows, shards, row) == index for index, block in enumerate(blocks) for row in block)
