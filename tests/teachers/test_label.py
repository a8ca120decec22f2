import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pseudo_labels import addresses
from pseudo_labels.audit.store import audit_store
from pseudo_labels.crops import RandomCrops
from pseudo_labels.errors import OutputConflictError, PocketiqaError, StorageFullError
from pseudo_labels.files import exclusive, staged_folder
from pseudo_labels.pool import Pool, build_pool
from pseudo_labels.records import Status
from pseudo_labels.store import LabelStore
from teachers.label import PoolLabeller, label
from teachers.reference import build_reference
from teachers.sharing import ShardQueue
from tests.helpers.campaign import kills
from tests.helpers.corpus import build_corpus
from tests.helpers.killing import kill_and_resume
from tests.helpers.labelling import label_folder, shard_bytes
from tests.helpers.own_teacher import Contrast
from tests.helpers.pools import clean_pool, synthetic_pool, write_photographs
from tests.helpers.tmpfs import small_disk

OWN = "tests.helpers.own_teacher"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return synthetic_pool(tmp_path_factory.mktemp("pool"), images=3, per_image=7, max_side=80)


@pytest.fixture(scope="module")
def unbroken(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> LabelStore:
    out = tmp_path_factory.mktemp("unbroken") / "labels"
    label_folder(str(pool.folder), str(out))
    return LabelStore.open(out)


def statuses(store: LabelStore) -> list[str]:
    return store.labels()["status"].to_pylist()


def test_rows_are_not_looked_for_one_by_one(pool: Pool, unbroken: LabelStore, tmp_path: Path, monkeypatch: Any):
    monkeypatch.delattr(Pool, "__getitem__")  # its time grows with the size of the pool
    store = label(pool.folder, f"{OWN}:build", tmp_path / "labels", batch_size=2)
    assert store.labels()["id"].to_pylist() == unbroken.labels()["id"].to_pylist()


def test_every_row_has_the_score_that_the_teacher_gives_it(pool: Pool, unbroken: LabelStore):
    teacher = build_reference()
    table = unbroken.labels()
    assert table["id"].to_pylist() == [ref.id for ref in pool]
    for ref, row in zip(pool, table.to_pylist(), strict=True):
        clean = pool.load(pool.by_id(ref.ref_id)) if ref.ref_id else pool.load(ref)
        alone = teacher([teacher.preprocess(pool.load(ref), clean)])
        assert alone.score_std is not None
        assert row["score"] == pytest.approx(float(alone.score[0]), abs=1e-6)
        assert row["score_std"] == pytest.approx(float(alone.score_std[0]), abs=1e-6)
        assert row["confidence"] == pytest.approx(1 / (1 + (row["score_std"] / 0.1) ** 2), abs=1e-5)
        assert (row["sha256"], row["view"], row["status"]) == (ref.sha256, "full", "ok")
    assert [score == 1.0 for score in table["score"].to_pylist()] == [not ref.ref_id for ref in pool]


def test_a_random_window_of_each_image_and_of_its_reference_is_labelled(tmp_path: Path):
    pool, crops = synthetic_pool(tmp_path, images=2, per_image=3, max_side=128), RandomCrops(0.6, 1.0, seed=3)
    store = label(pool.folder, "reference", tmp_path / "labels", crops=crops)
    teacher, rows = build_reference(), store.labels().to_pylist()
    for ref, row in zip(pool, rows, strict=True):
        window = crops.of(ref.id)
        assert row["view"] == window.view
        if min(window.in_pixels(ref.height, ref.width)[2:]) < 64:
            assert (row["status"], row["reason"].endswith("the metrics need 64 on each side")) == ("failed", True)
            continue
        clean = pool.load(pool.by_id(ref.ref_id)) if ref.ref_id else pool.load(ref)
        alone = teacher([teacher.preprocess(window.cut(pool.load(ref)), window.cut(clean))])
        assert row["score"] == pytest.approx(float(alone.score[0]), abs=1e-6)
    assert sum(row["status"] == "ok" for row in rows) >= 4
    with pytest.raises(OutputConflictError, match=r"preprocessing.crops.seed: 3 -> 4"):
        label(pool.folder, "reference", tmp_path / "labels", crops=RandomCrops(0.8, 1.0, seed=4))
    with pytest.raises(OutputConflictError, match=r"preprocessing.crops"):
        label(pool.folder, "reference", tmp_path / "labels")


def test_stored_features_are_those_of_the_teacher(unbroken: LabelStore):
    joined = np.concatenate([unbroken.shard_features(index)["metrics"] for index in range(unbroken.spec.shards)])
    scores = unbroken.labels()["score"].to_numpy()
    assert joined.shape == (len(scores), 5)
    np.testing.assert_allclose(joined.astype(np.float64).mean(1), scores, atol=1e-3)  # fp16


def test_kills_leave_the_bytes_of_an_unbroken_run(pool: Pool, tmp_path: Path):
    broken, peaceful = tmp_path / "broken", tmp_path / "peaceful"
    wanted = kills(30, short=4)
    hits = kill_and_resume(
        label_folder,
        [str(pool.folder), str(broken)],
        unbroken_args=[str(pool.folder), str(peaceful)],
        kills=wanted,
        preload=["teachers.reference", "pandas"],
    )
    assert hits == wanted
    assert shard_bytes(broken) == shard_bytes(peaceful)
    assert LabelStore.open(broken).digest == LabelStore.open(peaceful).digest


def torchrun(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python code in two processes on the CPU."""
    start = folder / "start.py"
    start.write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(start)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


def test_two_processes_write_the_bytes_of_one_even_if_one_dies_on_the_way(
    pool: Pool, unbroken: LabelStore, tmp_path: Path
):
    out, work = tmp_path / "labels", f"label_folder({str(pool.folder)!r}, {str(tmp_path / 'labels')!r})"
    dying = """
import os, signal
from pseudo_labels.store import LabelStore
from pseudo_labels.crops import RandomCrops
from tests.helpers.labelling import label_folder

write = LabelStore.write_shard

def write_or_die(store, index, *rest):
    if index == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(store, index, *rest)

LabelStore.write_shard = write_or_die
"""
    # Nobody waits for the dead: the whole run ends.
    assert torchrun(dying + work, tmp_path).returncode != 0
    store = LabelStore.open(out)
    assert not store.is_complete
    assert {3, 5} <= set(store.missing())  # the dead one's; the other may have been ended before its last

    resumed = torchrun("from tests.helpers.labelling import label_folder\n" + work, tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert shard_bytes(out) == shard_bytes(unbroken.folder)
    assert LabelStore.open(out).digest == unbroken.digest


def test_a_full_disk_stops_with_every_committed_shard_valid(pool: Pool, unbroken: LabelStore, tmp_path: Path):
    with small_disk(tmp_path / "disk", kib=90) as disk:
        out = disk / "labels"
        with pytest.raises(StorageFullError, match="free some space and run the same command again"):
            label_folder(str(pool.folder), str(out))
        store = LabelStore.open(out)
        assert 1 <= len(store.missing()) < store.spec.shards
        assert store.verify() == []
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        label_folder(str(pool.folder), str(out))
        assert shard_bytes(out) == shard_bytes(unbroken.folder)


def test_a_damaged_shard_is_found_by_audit_and_labelled_again(pool: Pool, unbroken: LabelStore, tmp_path: Path):
    out = tmp_path / "labels"
    label_folder(str(pool.folder), str(out))
    path = out / "shard-00003" / "labels.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    report = audit_store(out)
    assert [fault.index for fault in report.faults] == [3]
    assert "run the same label command again, it relabels" in report.warnings[0]
    said: list[str] = []
    label(pool.folder, "reference", out, batch_size=2, device="cpu", features=True, warn=said.append)
    assert said == ["shard 3 is labelled again: labels.parquet does not match its recorded SHA-256"]
    assert shard_bytes(out) == shard_bytes(unbroken.folder)
    assert LabelStore.open(out).digest == unbroken.digest
    assert audit_store(out).ok


def test_running_again_changes_nothing_and_other_settings_are_refused(pool: Pool, unbroken: LabelStore):
    before = {path: path.stat().st_mtime_ns for path in unbroken.folder.rglob("*")}
    again = label(pool.folder, "reference", unbroken.folder, features=True, batch_size=2)  # adopts the 6 shards
    assert again.digest == unbroken.digest
    shards = {path: time for path, time in before.items() if "shard-" in str(path)}
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    with pytest.raises(OutputConflictError, match=r"teacher\.options\.max_side: None -> 64"):
        label(pool.folder, "reference", unbroken.folder, features=True, options={"max_side": 64})
    with pytest.raises(OutputConflictError, match="shards: 6 -> 3"):
        label(pool.folder, "reference", unbroken.folder, features=True, shards=3)


def test_a_store_that_is_being_labelled_is_refused_to_others(pool: Pool, unbroken: LabelStore, tmp_path: Path):
    out = tmp_path / "labels"
    shutil.copytree(unbroken.folder, out)
    before = shard_bytes(out)
    for name in (".shard-00001.4711-ab.staged", ".manifest.json.4711-cd.tmp"):
        (out / name).mkdir() if name.endswith("staged") else (out / name).touch()
    with exclusive(out / ".lock", what="it"):
        for overwrite in (False, True):
            with pytest.raises(OutputConflictError, match="another process is writing"):
                label(pool.folder, "reference", out, overwrite=overwrite)
    # Leftovers of killed processes go on the next run, of a finished store too; what is being written stays.
    with staged_folder(out / "shard-00099") as living:
        label_folder(str(pool.folder), str(out))
        assert sorted(path.name for path in out.glob(".*")) == [living.name]
    shutil.rmtree(out / "shard-00099")
    assert shard_bytes(out) == before


def test_overwrite_starts_over(pool: Pool, tmp_path: Path):
    label(pool.folder, f"{OWN}:build", tmp_path / "labels", shards=2)
    store = label(pool.folder, f"{OWN}:build", tmp_path / "labels", options={"nan_below": 0.01}, overwrite=True)
    assert store.spec.shards == 8
    assert store.spec.stamp.options == {"nan_below": 0.01}


def test_progress_counts_rows_and_starts_from_what_is_done(pool: Pool, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    store = label(pool.folder, f"{OWN}:build", tmp_path / "labels", progress=lambda *step: seen.append(step))
    assert seen[0] == (0, len(pool))
    assert seen[-1] == (len(pool), len(pool))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    store.discard(0)
    seen.clear()
    label(pool.folder, f"{OWN}:build", tmp_path / "labels", progress=lambda *step: seen.append(step))
    assert seen[0] == (len(pool) - len(store.shard_rows(0)), len(pool))


def test_batches_hold_neighbours_of_one_shape(pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    teacher = Contrast()
    monkeypatch.setattr("tests.helpers.own_teacher.build", lambda: teacher)
    label(pool.folder, f"{OWN}:build", tmp_path / "labels", shards=1, batch_size=3)
    runs = [len(list(run)) for _, run in groupby((ref.width, ref.height) for ref in pool)]
    assert len(runs) > 1
    assert teacher.batches == [min(3, run - start) for run in runs for start in range(0, run, 3)]
    # Each row says in how large a batch it was scored.
    store = LabelStore.open(tmp_path / "labels")
    assert store.spec.batch_size == 3
    assert store.labels()["batch"].to_pylist() == [size for size in teacher.batches for _ in range(size)]


def test_out_of_memory_halves_the_batch_and_says_so(pool: Pool, tmp_path: Path):
    said: list[str] = []
    options = {"memory_images": 2}
    store = label(
        pool.folder, f"{OWN}:build", tmp_path / "little", shards=1, options=options, batch_size=8, warn=said.append
    )
    assert said == [f"out of memory with a batch of {size} images: continuing with {size // 2}" for size in (8, 4)]
    plenty = label(pool.folder, f"{OWN}:build", tmp_path / "much", shards=1)
    assert store.spec == plenty.spec
    assert (set(store.labels()["batch"].to_pylist()), max(plenty.labels()["batch"].to_pylist())) == ({2}, 8)
    assert store.digest != plenty.digest  # rows scored in other batches are not said to be the same
    assert store.labels()["score"].to_pylist() == pytest.approx(plenty.labels()["score"].to_pylist(), abs=1e-6)


def test_a_store_is_gone_on_with_in_its_batches_or_in_smaller_ones(pool: Pool, tmp_path: Path):
    out, said = tmp_path / "labels", list[str]()
    store = label(pool.folder, f"{OWN}:build", out, shards=3, batch_size=4)
    digest = store.digest
    store.discard(0)
    assert label(pool.folder, f"{OWN}:build", out).digest == digest  # 4, and not the default
    with pytest.raises(OutputConflictError, match="batch_size: 4 -> 8"):
        label(pool.folder, f"{OWN}:build", out, batch_size=8)
    store.discard(1)
    smaller = label(pool.folder, f"{OWN}:build", out, batch_size=2, warn=said.append)
    assert said == ["the store was begun in batches of 4: from now on in batches of 2, and rows say so"]
    assert [max(smaller.shard_labels(index)["batch"].to_pylist()) for index in range(3)] == [4, 2, 4]


def test_an_old_store_that_says_nothing_of_batches_is_finished_as_it_was_begun(pool: Pool, tmp_path: Path):
    new = label(pool.folder, f"{OWN}:build", tmp_path / "new", shards=3)
    stores = []
    for name, shards in (("whole", [0, 1, 2]), ("begun", [1])):
        spec = replace(new.spec, batch_size=None)
        assert "batch_size" not in spec.as_dict()
        stores.append(LabelStore.create(tmp_path / name, spec, pool_path=pool.folder))
        labeller = PoolLabeller(pool, Contrast(), (), batch_size=8)
        labeller.label(stores[-1], ShardQueue(stores[-1], shards))
    stores[0].finish()
    finished = label(pool.folder, f"{OWN}:build", tmp_path / "begun", batch_size=8)
    assert "batch" not in finished.labels().column_names
    assert shard_bytes(finished.folder) == shard_bytes(stores[0].folder)
    assert finished.digest == LabelStore.open(tmp_path / "whole").digest
    assert finished.labels()["score"].to_pylist() == new.labels()["score"].to_pylist()


def test_an_image_too_large_for_memory_fails_alone(tmp_path: Path):
    pool = clean_pool(tmp_path, images=3, max_side=80)
    with pytest.raises(PocketiqaError, match=r"3 of 3 images got no label.*out of memory with a batch of 1"):
        label(pool.folder, f"{OWN}:build", tmp_path / "labels", options={"memory_images": 0})


def test_bad_rows_carry_their_reason_and_what_changed_since_is_noticed(tmp_path: Path):
    photographs = write_photographs(tmp_path / "photographs", images=7, max_side=80)
    (tmp_path / "photographs" / "9-text.jpg").write_text("not an image")
    pool = build_pool([str(tmp_path / "photographs")], tmp_path / "pool")
    photographs[1].unlink()
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(photographs[2])
    store = label(pool.folder, f"{OWN}:build", tmp_path / "labels", options={"nan_below": 0.15}, features=True)
    rows = store.labels().to_pylist()
    values_of = {Path(row["uri"]).name[:1]: (row["status"], row["reason"]) for row in rows}
    assert values_of["9"] == ("not_an_image", next(ref.reason for ref in pool if ref.status != Status.OK))
    assert values_of["1"][0] == "missing"
    assert values_of["2"][0] == "changed"
    dark = {key for key, value in values_of.items() if value == ("failed", "the teacher gave a score of nan")}
    assert dark == {"5"}  # the deep field of stars
    assert {key for key, (status, _) in values_of.items() if status == "ok"} == {"0", "3", "4", "6"}
    assert all(math.isnan(row["score"]) == (row["status"] != "ok") for row in rows)
    assert all(row["confidence"] == 0.0 for row in rows if row["status"] != "ok")


def test_every_file_of_the_corpus_gets_a_row_that_says_what_became_of_it(tmp_path: Path):
    items = build_corpus(tmp_path / "images")
    never_there = [str(item.path) for item in items if not os.path.lexists(item.path)]
    pool = build_pool([str(tmp_path / "images"), *never_there], tmp_path / "pool", max_bad_fraction=0.8)
    expected = {addresses.of_path(item.path): item.expected_status for item in items}
    vanished, changed = [ref for ref in pool.ok() if "turn-" in ref.uri][:2]
    os.unlink(vanished.uri)
    Path(changed.uri).write_bytes(b"another")
    expected |= {vanished.uri: Status.MISSING, changed.uri: Status.CHANGED}

    rows = label(pool.folder, f"{OWN}:build", tmp_path / "labels").labels().to_pylist()
    assert {row["uri"]: row["status"] for row in rows} == expected
    assert len(rows) == len(items)
    for row in rows:
        assert (row["reason"] == "") == (row["status"] == "ok") == (not math.isnan(row["score"]))


def test_an_image_that_the_teacher_refuses_has_its_reason(pool: Pool, tmp_path: Path):
    store = label(
        pool.folder, f"{OWN}:build", tmp_path / "labels", options={"refuse_wide": 90}, max_failed_fraction=1.0
    )
    wide = [ref.width > 90 for ref in pool]
    assert any(wide)
    assert [status == "failed" for status in statuses(store)] == wide
    assert "96 pixels are too wide for me" in store.labels()["reason"].to_pylist()


def test_a_distorted_image_whose_original_is_gone_has_no_reference(tmp_path: Path):
    pool = synthetic_pool(tmp_path, images=3, per_image=3, max_side=80)
    originals = [ref for ref in pool if not ref.ref_id]
    (tmp_path / "photographs" / Path(originals[1].uri).name).unlink()
    store = label(pool.folder, "reference", tmp_path / "labels")
    expected = ["ok"] * 4 + ["missing"] + ["no_reference"] * 3 + ["ok"] * 4
    assert statuses(store) == expected
    assert store.labels()["reason"][5].as_py().startswith(f"clean image {originals[1].id}: ")


def test_a_pool_without_distortions_is_refused_by_a_reference_teacher(tmp_path: Path):
    pool = clean_pool(tmp_path, images=2, max_side=80)
    with pytest.raises(PocketiqaError, match="no distorted images: make a synthetic pool with 'pocketiqa distort'"):
        label(pool.folder, "reference", tmp_path / "labels")
    assert not (tmp_path / "labels").exists()


def test_too_many_failures_are_loud_and_only_they_are_tried_again(tmp_path: Path):
    photographs = write_photographs(tmp_path / "photographs", images=6, max_side=80)
    pool = build_pool([str(tmp_path / "photographs")], tmp_path / "pool")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for path in photographs[:4]:
        path.rename(hidden / path.name)
    out = tmp_path / "labels"
    with pytest.raises(PocketiqaError, match=r"4 of 6 images got no label, more than the limit of 50% .*missing: "):
        label(pool.folder, f"{OWN}:build", out, shards=3)
    store = LabelStore.open(out)
    assert (store.missing(), store.is_complete) == ([], False)
    for path in photographs[:4]:
        (hidden / path.name).rename(path)
    said: list[str] = []
    store = label(pool.folder, f"{OWN}:build", out, shards=3, warn=said.append)
    assert said == [f"shard {index} is labelled again: 2 of its 2 images had failed" for index in (0, 1)]
    assert statuses(store) == ["ok"] * 6


def test_more_failures_can_be_allowed(pool: Pool, tmp_path: Path):
    store = label(pool.folder, f"{OWN}:always_nan", tmp_path / "labels", features=True, max_failed_fraction=1.0)
    assert set(statuses(store)) == {"failed"}
    assert store.shard_features(0)["cells"].shape == (len(store.shard_rows(0)), 0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 0}, "a batch size of 0"),
        ({"decode_workers": 0}, "a number of decode workers of 0"),
        ({"threads": 0}, "0 threads"),
        ({"shards": 0}, "0 shards for a pool of 24 images: choose from 1 to 24"),
        ({"shards": 25}, "25 shards for a pool of 24"),
        ({"device": "cuda:99"}, "device 'cuda:99'"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_written(
    pool: Pool, tmp_path: Path, options: dict[str, object], named: str
):
    with pytest.raises(PocketiqaError, match=named):
        label(pool.folder, "reference", tmp_path / "labels", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "labels").exists()


def test_another_pool_than_the_store_was_made_for_is_refused(pool: Pool, unbroken: LabelStore, tmp_path: Path):
    labeller = PoolLabeller(clean_pool(tmp_path, images=2), build_reference(), unbroken.spec.features)
    with pytest.raises(PocketiqaError, match="is not the one that"):
        labeller.label(unbroken, ShardQueue(unbroken, []))


def test_a_teacher_off_the_scale_stops_the_run(pool: Pool, tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"teacher 'contrast' gave scores from 55 to 55: they must be in \[0, 1\]"):
        label(pool.folder, f"{OWN}:percent", tmp_path / "labels")


def test_the_number_of_threads_is_restored(pool: Pool, tmp_path: Path):
    before = torch.get_num_threads()
    label(pool.folder, f"{OWN}:build", tmp_path / "labels", threads=before + 1)
    assert torch.get_num_threads() == before
