import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError, StorageFullError
from pseudo_labels.records import PseudoLabel, Status, TeacherStamp
from pseudo_labels.store import LabelStore, StoreSpec
from tests.helpers.tmpfs import small_disk

STAMP = TeacherStamp("reference", 1, "abc", {"metrics": ["fsim", "vif"]})
SPEC = StoreSpec(STAMP, "pool-digest", rows=10, shards=3, preprocessing={"decode": {"background": (255, 255, 255)}})
WITH_FEATURES = replace(SPEC, features=("map",))


def labels_of(rows: range) -> list[PseudoLabel]:
    """Row 4 has failed; names hold what people's file names hold."""
    values = [
        PseudoLabel(
            f"id{row}", f"a b\n'{row}'.jpg é 漢", f"{row:064x}", score=row % 10 / 10, score_std=0.05, confidence=0.8
        )
        for row in rows
    ]
    failed = {"status": Status.MISSING, "reason": "no such file", "score": math.nan, "score_std": math.nan}
    return [replace(label, **failed, confidence=0.0) if label.id == "id4" else label for label in values]


def features_of(rows: range) -> dict[str, np.ndarray]:
    return {"map": np.stack([np.full((2, 3), row + 0.5, np.float32) for row in rows])}


def write(store: LabelStore, index: int) -> None:
    rows = store.shard_rows(index)
    store.write_shard(index, labels_of(rows), features_of(rows) if store.spec.features else None)


def filled(folder: Path, spec: StoreSpec = WITH_FEATURES) -> LabelStore:
    store = LabelStore.create(folder, spec, pool_path=folder.parent / "pool")
    for index in range(spec.shards):
        write(store, index)
    store.finish()
    return store


def content(folder: Path) -> dict[str, bytes]:
    shards = sorted(folder.glob("shard-*/*"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in shards}


def test_rows_come_back_as_they_were_written(tmp_path: Path):
    store = LabelStore.open(filled(tmp_path / "labels").folder)
    table = store.labels()
    assert table["id"].to_pylist() == [f"id{row}" for row in range(10)]
    assert table["uri"][3].as_py() == "a b\n'3'.jpg é 漢"
    assert table["score"][9].as_py() == pytest.approx(0.9, abs=1e-7)
    assert table["status"][4].as_py() == "missing"
    assert table["reason"][4].as_py() == "no such file"
    assert math.isnan(table["score"][4].as_py())
    assert table["score"].null_count == 0
    assert store.is_complete
    assert store.spec == replace(WITH_FEATURES, preprocessing={"decode": {"background": [255, 255, 255]}})
    assert store.pool_path == (tmp_path / "pool").resolve()


def test_features_are_row_aligned_and_zero_where_a_row_failed(tmp_path: Path):
    store = filled(tmp_path / "labels")
    joined = np.concatenate([store.shard_features(index)["map"] for index in range(3)])
    assert joined.dtype == np.float16
    assert joined.shape == (10, 2, 3)
    assert [float(row.mean()) for row in joined] == [0.0 if row == 4 else row + 0.5 for row in range(10)]
    # Foreign readers see the same file.
    assert set(load_file(store.shard_folder(0) / "features.safetensors")) == {"map"}
    assert pq.read_table(store.shard_folder(1) / "labels.parquet").num_rows == len(store.shard_rows(1))


def test_the_same_labels_give_the_same_bytes_in_another_process_and_place(tmp_path: Path):
    first = filled(tmp_path / "a" / "labels")
    script = (
        "import sys; from pathlib import Path; from tests.pseudo_labels.test_store import filled; "
        "filled(Path(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "elsewhere")], check=True, cwd=Path(__file__).parents[2]
    )
    second = LabelStore.open(tmp_path / "elsewhere")
    assert content(first.folder) == content(second.folder)
    assert first.digest == second.digest


def test_the_digest_tells_labels_and_teachers_apart(tmp_path: Path):
    digests = {filled(tmp_path / "a").digest, filled(tmp_path / "b", SPEC).digest}
    other = LabelStore.create(tmp_path / "c", SPEC, pool_path=tmp_path)
    for index in range(3):
        other.write_shard(index, [replace(label, confidence=0.5) for label in labels_of(other.shard_rows(index))])
    other.finish()
    assert len(digests | {other.digest}) == 3


def test_an_unfinished_store_is_gone_on_with_but_not_read(tmp_path: Path):
    store = LabelStore.create(tmp_path / "labels", SPEC, pool_path=tmp_path)
    write(store, 1)
    with pytest.raises(PocketiqaError, match=r"2 of 3 shards .* \(0, 2\)"):
        store.labels()
    with pytest.raises(PocketiqaError, match="2 of 3 shards"):
        store.finish()
    again = LabelStore.create(tmp_path / "labels", SPEC, pool_path=tmp_path)
    assert again.missing() == [0, 2]
    write(again, 0)
    write(again, 2)
    with pytest.raises(PocketiqaError, match="not finished"):
        again.labels()
    again.finish()
    assert again.labels().num_rows == 10


def test_a_pool_that_moved_is_noted_and_the_labels_stay(tmp_path: Path):
    store = filled(tmp_path / "labels")
    again = LabelStore.create(tmp_path / "labels", WITH_FEATURES, pool_path=tmp_path / "moved")
    assert LabelStore.open(again.folder).pool_path == (tmp_path / "moved").resolve()
    assert LabelStore.open(again.folder).digest == store.digest


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (replace(SPEC, shards=2), "shards: 3 -> 2"),
        (replace(SPEC, pool_digest="x"), "pool: 'pool-digest' -> 'x'"),
        (replace(SPEC, stamp=replace(STAMP, version=2)), "teacher.version: 1 -> 2"),
        (replace(SPEC, threads=2), "threads: 1 -> 2"),
    ],
)
def test_a_store_made_differently_is_refused_by_name(tmp_path: Path, other: StoreSpec, named: str):
    filled(tmp_path / "labels", SPEC)
    with pytest.raises(OutputConflictError, match=named):
        LabelStore.create(tmp_path / "labels", other, pool_path=tmp_path)
    assert LabelStore.create(tmp_path / "labels", other, pool_path=tmp_path, overwrite=True).missing()


@pytest.mark.parametrize("name", ["labels.parquet", "features.safetensors", "stats.json", "shard.json"])
def test_a_changed_byte_is_refused_and_found(tmp_path: Path, name: str):
    store = filled(tmp_path / "labels")
    path = store.shard_folder(1) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    fresh = LabelStore.open(store.folder)
    with pytest.raises(IntegrityError, match=r"shard 1 of .*run the same label command again"):
        fresh.labels()
    faults = fresh.verify()
    assert [fault.index for fault in faults] == [1]
    assert name in faults[0].reason


@pytest.mark.parametrize("name", ["labels.parquet", "features.safetensors", "stats.json"])
def test_a_file_that_is_gone_is_a_fault(tmp_path: Path, name: str):
    store = filled(tmp_path / "labels")
    (store.shard_folder(2) / name).unlink()
    assert [(fault.index, name in fault.reason) for fault in store.verify()] == [(2, True)]


def test_a_shard_swapped_in_from_elsewhere_is_refused(tmp_path: Path):
    store, other = filled(tmp_path / "a"), filled(tmp_path / "b", replace(WITH_FEATURES, pool_digest="another"))
    shutil.rmtree(store.shard_folder(0))
    shutil.copytree(other.shard_folder(0), store.shard_folder(0))
    shutil.rmtree(store.shard_folder(1))
    shutil.copytree(store.shard_folder(2), store.shard_folder(1))
    assert [(fault.index, "another shard or store" in fault.reason) for fault in store.verify()] == [
        (0, True),
        (1, True),
    ]


def test_a_shard_written_anew_with_other_labels_does_not_match_the_finished_store(tmp_path: Path):
    store = filled(tmp_path / "labels")
    forger = LabelStore.open(store.folder)
    shutil.rmtree(forger.shard_folder(0))
    rows = forger.shard_rows(0)
    forger.write_shard(0, [replace(label, score=1.0) for label in labels_of(rows)], features_of(rows))
    with pytest.raises(IntegrityError, match="does not match the manifest"):
        LabelStore.open(store.folder).labels()


def test_a_discarded_shard_is_written_again_to_the_same_store(tmp_path: Path):
    store = filled(tmp_path / "labels")
    digest, before = store.digest, content(store.folder)
    store.discard(1)
    assert not LabelStore.open(store.folder).is_complete
    assert store.missing() == [1]
    write(store, 1)
    store.finish()
    assert (store.digest, content(store.folder)) == (digest, before)


def test_leftovers_of_a_killed_writer_do_no_harm_and_go(tmp_path: Path):
    store = LabelStore.create(tmp_path / "labels", SPEC, pool_path=tmp_path)
    leftover = store.folder / ".shard-00000.4242.staged"
    leftover.mkdir()
    (leftover / "labels.parquet").write_bytes(b"half")
    (store.folder / ".shard-00000.lock").touch()
    assert store.missing() == [0, 1, 2]
    write(store, 0)
    assert sorted(path.name for path in store.folder.iterdir()) == ["manifest.json", "shard-00000"]


def test_two_processes_do_not_write_one_shard(tmp_path: Path):
    store = LabelStore.create(tmp_path / "labels", SPEC, pool_path=tmp_path)
    with store.writing(0):
        child = os.fork()
        if child == 0:
            try:
                write(LabelStore.open(store.folder), 0)
                os._exit(0)
            except OutputConflictError as error:
                os._exit(7 if "another process is writing shard-00000" in str(error) else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        write(store, 0)
    write(LabelStore.open(store.folder), 1)
    assert store.missing() == [2]


def test_a_store_that_was_started_over_is_not_mixed_with_the_old_one(tmp_path: Path):
    old = LabelStore.create(tmp_path / "labels", SPEC, pool_path=tmp_path)
    new = LabelStore.create(tmp_path / "labels", replace(SPEC, pool_digest="x"), pool_path=tmp_path, overwrite=True)
    with pytest.raises(OutputConflictError, match="started over by another process"):
        write(old, 0)
    assert new.missing() == [0, 1, 2]


BAD_LABELS: list[tuple[dict[str, Any], str]] = [
    ({"score": 1.2}, "score of image id0 is 1.2"),
    ({"score": math.nan}, "score of image id0 is nan"),
    ({"score_std": -0.1}, "score_std of image id0 is -0.1"),
    ({"score_std": math.inf}, "score_std of image id0 is inf"),
    ({"confidence": 2.0}, "confidence of image id0 is 2.0"),
    ({"status": Status.FAILED, "reason": "broken"}, "status failed, but a score"),
    ({"status": Status.FAILED, "score": math.nan, "score_std": math.nan}, "no reason"),
]


@pytest.mark.parametrize(("change", "named"), BAD_LABELS)
def test_a_label_out_of_range_is_refused(tmp_path: Path, change: dict[str, Any], named: str):
    store = LabelStore.create(tmp_path / "labels", SPEC, pool_path=tmp_path)
    labels = labels_of(store.shard_rows(0))
    with pytest.raises(PocketiqaError, match=named):
        store.write_shard(0, [replace(labels[0], **change), *labels[1:]])
    assert store.missing() == [0, 1, 2]


def test_rows_and_features_must_be_those_of_the_shard(tmp_path: Path):
    store = LabelStore.create(tmp_path / "labels", WITH_FEATURES, pool_path=tmp_path)
    rows = store.shard_rows(0)
    with pytest.raises(PocketiqaError, match="has 3 rows, but 2 labels"):
        store.write_shard(0, labels_of(rows)[:2], features_of(rows))
    with pytest.raises(PocketiqaError, match=r"features \[\] were given .* holds \['map'\]"):
        store.write_shard(0, labels_of(rows))
    with pytest.raises(PocketiqaError, match="'map' has 2 rows, but the shard has 3"):
        store.write_shard(0, labels_of(rows), {"map": np.zeros((2, 4))})
    with pytest.raises(PocketiqaError, match="'map' is not finite in fp16"):
        store.write_shard(0, labels_of(rows), {"map": np.full((3, 4), 1e6)})
    with pytest.raises(PocketiqaError, match=r"shard 3 of .* shards 0 to 2"):
        store.write_shard(3, labels_of(rows))


def test_who_writes_a_shard_late_changes_nothing_and_other_rows_are_refused(tmp_path: Path):
    store = LabelStore.create(tmp_path / "labels", WITH_FEATURES, pool_path=tmp_path)
    write(store, 0)
    before = {path: path.stat().st_mtime_ns for path in store.shard_folder(0).iterdir()}
    write(LabelStore.open(store.folder), 0)
    labels = [replace(label, confidence=0.5) for label in labels_of(store.shard_rows(0))]
    with pytest.raises(OutputConflictError, match=r"shard 0 of .* is committed already, with other content"):
        store.write_shard(0, labels, features_of(store.shard_rows(0)))
    assert {path: path.stat().st_mtime_ns for path in store.shard_folder(0).iterdir()} == before
    assert store.has(0)
    assert (store.missing(), store.missing([0, 2])) == ([1, 2], [2])


@pytest.mark.parametrize(
    ("change", "named"), [({"rows": 0}, "no rows"), ({"shards": 11}, "11 shards for a pool of 10")]
)
def test_a_spec_that_cannot_be_is_refused(change: dict[str, int], named: str):
    with pytest.raises(PocketiqaError, match=named):
        replace(SPEC, **change)


def test_a_full_disk_keeps_every_committed_shard(tmp_path: Path):
    spec = replace(WITH_FEATURES, rows=200, shards=10)
    maps = {"map": np.random.default_rng(0).random((20, 2000))}  # 80 KB a shard

    def write_all(store: LabelStore) -> None:
        for index in store.missing():
            store.write_shard(index, labels_of(store.shard_rows(index)), maps)

    with small_disk(tmp_path / "disk", kib=400) as disk:
        store = LabelStore.create(disk / "labels", spec, pool_path=tmp_path)
        with pytest.raises(StorageFullError, match="everything committed so far is valid"):
            write_all(store)
        missing = store.missing()
        assert 1 <= len(missing) < 10
        assert LabelStore.open(store.folder).verify() == []
        assert not list(store.folder.glob(".*"))
        moved = LabelStore.open(shutil.copytree(store.folder, tmp_path / "larger"))
    assert moved.missing() == missing
    write_all(moved)
    moved.finish()
    assert moved.labels().num_rows == 200
