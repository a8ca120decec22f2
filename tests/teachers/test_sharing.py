"""Processes that share a store through the store alone: nothing lost, nothing doubled, the digest of one process."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from distill.cli import app
from distill.terminal.console import run_cli
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.files import exclusive
from pseudo_labels.pool import Pool, build_pool
from pseudo_labels.regions.store import RegionLabelStore
from pseudo_labels.store import LabelStore
from teachers.label import label
from teachers.regions import label_regions
from teachers.sharing import OpenShards, Part
from tests.helpers.labelling import shard_bytes, written
from tests.helpers.own_teacher import Contrast
from tests.helpers.pools import clean_pool, write_photographs
from tests.helpers.regions import region_folder

OWN = "tests.helpers.own_teacher"
ROOT = Path(__file__).parents[2]
OPEN = OpenShards()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return clean_pool(tmp_path_factory.mktemp("pool"), images=7, max_side=80)


@pytest.fixture(scope="module")
def alone(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> LabelStore:
    return label(pool.folder, f"{OWN}:build", tmp_path_factory.mktemp("alone") / "labels", shards=5)


def start(pool: Pool, out: Path, **options: object) -> "subprocess.Popen[str]":
    """A process that claims open shards, with a teacher that stops for ever."""
    script = f"""
from teachers.label import label
from teachers.sharing import OpenShards
label({str(pool.folder)!r}, "{OWN}:stuck", {str(out)!r}, shards=5, options={options!r}, share=OpenShards())
"""
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def test_parts_in_any_order_make_the_store_of_one_process(pool: Pool, alone: LabelStore, tmp_path: Path):
    out, name = tmp_path / "labels", f"{OWN}:build"
    last = label(pool.folder, name, out, shards=5, share=Part(2, 2))
    assert (last.manifest.complete, last.missing()) == (False, [0, 2, 4])
    first = label(pool.folder, name, out, share=Part(1, 2))
    assert first.digest == alone.digest
    assert shard_bytes(out) == shard_bytes(alone.folder)
    before = written(out)
    for share in (Part(2, 2), OPEN, Part(8, 8)):  # of a finished store nothing is left to do
        assert label(pool.folder, name, out, share=share).digest == alone.digest
    assert written(out) == before
    assert sorted(path.name for path in out.glob(".*")) == []


def test_a_second_process_of_the_same_part_is_refused(pool: Pool, tmp_path: Path):
    out = tmp_path / "labels"
    label(pool.folder, f"{OWN}:build", out, shards=5, share=Part(1, 3))
    with (
        exclusive(out / ".shard-00004.lock", what="it"),
        pytest.raises(OutputConflictError, match="another process is writing shard-00004"),
    ):
        label(pool.folder, f"{OWN}:build", out, share=Part(2, 3))
    assert set(LabelStore.open(out).missing()) >= {2, 4}


def test_processes_that_claim_open_shards_score_every_image_once(
    pool: Pool, alone: LabelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Threads, each with a store and a teacher of its own: the locks of files are between open files."""
    teachers: list[Contrast] = []

    def build() -> Contrast:
        teachers.append(Contrast())
        return teachers[-1]

    monkeypatch.setattr(f"{OWN}.build", build)
    errors: list[BaseException] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        try:
            barrier.wait()
            label(pool.folder, f"{OWN}:build", tmp_path / "labels", shards=5, share=OPEN)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sum(sum(teacher.batches) for teacher in teachers) == len(pool)
    store = LabelStore.open(tmp_path / "labels")
    assert store.digest == alone.digest
    assert shard_bytes(store.folder) == shard_bytes(alone.folder)


def test_the_claim_of_a_process_that_died_is_taken_over(pool: Pool, alone: LabelStore, tmp_path: Path):
    out = tmp_path / "labels"
    mark = tmp_path / "stuck"
    other = start(pool, out, at_batch=1, mark=str(mark))
    said: list[str] = []

    def kill(text: str) -> None:
        # Everything else is labelled: only the shards that the stuck process holds are open.
        said.append(text)
        store = LabelStore.open(out)
        held = {int(path.name[7:12]) for path in out.glob(".shard-*.lock")}
        assert set(store.missing()) <= held
        assert store.missing()
        assert not store.manifest.complete
        other.kill()

    try:
        # Whether a shard is committed by then is a matter of time: it reads ahead, and so may hold several.
        while not mark.exists():
            assert other.poll() is None, other.communicate()
            threading.Event().wait(0.02)
        store = label(pool.folder, f"{OWN}:build", out, share=OPEN, warn=kill)
    finally:
        other.kill()
        other.communicate()
    assert [text.split(":")[0] for text in said] == ["waiting for other processes, which label the last shards"]
    assert store.digest == alone.digest
    assert shard_bytes(out) == shard_bytes(alone.folder)


def test_a_shard_of_another_part_that_was_altered_is_labelled_again(pool: Pool, alone: LabelStore, tmp_path: Path):
    for share in (OPEN, Part(2, 2)):
        out, said = tmp_path / type(share).__name__, list[str]()
        label(pool.folder, f"{OWN}:build", out, shards=5, share=Part(1, 2))
        table = out / "shard-00002" / "labels.parquet"
        table.write_bytes(table.read_bytes()[:-9])
        store = label(pool.folder, f"{OWN}:build", out, share=share, warn=said.append)
        assert said == ["shard 2 is labelled again: labels.parquet does not match its recorded SHA-256"]
        assert shard_bytes(out) == shard_bytes(alone.folder)
        assert store.digest == alone.digest


def test_too_many_failures_are_tried_again_once_the_cause_is_mended(tmp_path: Path):
    photographs = write_photographs(tmp_path / "photographs", images=6, max_side=80)
    pool = build_pool([str(tmp_path / "photographs")], tmp_path / "pool")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for path in photographs[:4]:
        path.rename(hidden / path.name)
    out = tmp_path / "labels"
    for _ in range(2):  # the second run tries again, fails again and ends
        with pytest.raises(PocketiqaError, match="4 of 6 images got no label"):
            label(pool.folder, f"{OWN}:build", out, shards=3, share=OPEN)
    for path in photographs[:4]:
        (hidden / path.name).rename(path)
    said: list[str] = []
    store = label(pool.folder, f"{OWN}:build", out, share=OPEN, warn=said.append)
    assert said == [f"shard {index} is labelled again: 2 of its 2 images had failed" for index in (0, 1)]
    assert set(store.labels()["status"].to_pylist()) == {"ok"}


def test_regions_are_shared_alike(tmp_path: Path):
    folder = region_folder(tmp_path)
    pools = folder / "clean", folder / "regions"
    alone = label_regions(*pools, f"crop:{OWN}:build", tmp_path / "alone", shards=3)
    parts = [
        label_regions(*pools, f"crop:{OWN}:build", tmp_path / "parts", shards=3, share=share)
        for share in (Part(3, 3), OPEN)
    ]
    assert [part.manifest.complete for part in parts] == [False, True]
    # As images do, regions say in how large a batch their crops were scored.
    assert alone.manifest.spec["batch_size"] == 8
    assert {row.batch for row in alone.rows() if row.status == "ok"} <= set(range(1, 9))
    assert 6 in {row.batch for row in alone.rows()}  # the crops of a grid of 3 x 2 are of one size
    assert RegionLabelStore.open(tmp_path / "parts").digest == alone.digest
    assert shard_bytes(tmp_path / "parts") == shard_bytes(alone.folder)


@pytest.mark.parametrize("share", [OPEN, Part(1, 2)])
def test_what_does_not_go_together_is_refused(
    share: OpenShards | Part, pool: Pool, alone: LabelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = shutil.copytree(alone.folder, tmp_path / "labels")
    with pytest.raises(PocketiqaError, match="no one of them may start over: remove the store first"):
        label(pool.folder, f"{OWN}:build", out, overwrite=True, share=share)
    with pytest.raises(OutputConflictError, match="threads: 1 -> 2"):
        label(pool.folder, f"{OWN}:build", out, threads=2, share=share)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(OutputConflictError, match="was not written by pocketiqa"):
        label(pool.folder, f"{OWN}:build", tmp_path / "mine", share=share)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(PocketiqaError, match="needs no launcher: start each process by itself"):
        label(pool.folder, f"{OWN}:build", out, share=share)


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "-1/3", "1/0", "a/b", "1/3/5", "1 / 3"])
def test_a_part_that_cannot_be_is_refused(text: str):
    with pytest.raises(PocketiqaError, match="write N/M with N from 1 to M"):
        Part.parse(text)


def test_parts_of_the_command_say_what_is_there(pool: Pool, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["label", str(pool.folder), "--teacher", f"{OWN}:build", "--out", str(tmp_path / "labels")]
    assert run_cli(app, [*words, "--shards", "4", "--shard", "2/2"]) == 0
    assert "2 of 4 shards are there, others are to come" in capsys.readouterr().out
    assert run_cli(app, [*words, "--claim"]) == 0
    assert f"{len(pool)} rows ({len(pool)} ok) by contrast in 4 shards" in capsys.readouterr().out
    assert run_cli(app, [*words, "--claim", "--shard", "1/2"]) == 1
    assert "--shard and --claim are ways to share the work: choose one" in capsys.readouterr().err
