"""The commands over addresses: a pool, its images, two label stores, their audit and their fusion, in one bucket."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from distill.cli import app
from distill.evaluation.predictions import kind_of
from distill.terminal.console import run_cli
from pseudo_labels import remote
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fusion.report import read_fusion
from pseudo_labels.pool import Pool
from pseudo_labels.store import LabelStore
from teachers.sharing import OpenShards, Part
from tests.helpers.pools import write_photographs

BUCKET = "memory://everything"
OWN = "tests.helpers.own_teacher:build"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("POCKETIQA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for file in write_photographs(tmp_path / "photographs", images=6, max_side=64):
        fsspec.filesystem("memory").pipe_file(f"{BUCKET}/photographs/{file.name}", file.read_bytes())
    yield tmp_path
    fsspec.filesystem("memory").store.clear()


def run(*words: str) -> None:
    assert run_cli(app, list(words)) == 0


def test_a_bucket_is_enough(here: Path, capsys: pytest.CaptureFixture[str]):
    run("pool", str(here / "photographs"), "--out", "pool")
    run("pool", f"{BUCKET}/photographs", "--out", f"{BUCKET}/pool")
    run("pool", f"{BUCKET}/photographs", "--out", f"{BUCKET}/pool")  # again: it is there
    pool = Pool.open(f"{BUCKET}/pool")
    assert pool.digest == Pool.open(Path("pool")).digest
    for out in (f"{BUCKET}/labels", "labels"):
        run("label", f"{BUCKET}/pool", "--teacher", OWN, "--out", out, "--shards", "3", "--features")
    run("label", f"{BUCKET}/pool", "--teacher", OWN, "--out", f"{BUCKET}/parts", "--shards", "3", "--shard", "2/2")
    run("label", f"{BUCKET}/pool", "--teacher", OWN, "--out", f"{BUCKET}/parts", "--claim")
    store, local = LabelStore.open(f"{BUCKET}/labels"), LabelStore.open(Path("labels"))
    assert store.digest == local.digest
    assert store.pool_path == pool.folder
    capsys.readouterr()
    run("audit", f"{BUCKET}/labels", "--out", "audit.html")
    told = capsys.readouterr().out
    assert f"{BUCKET}/labels" in told
    assert "levels and pictures need the pool" not in told  # its pool was found, too
    run("fuse", f"{BUCKET}/labels", "--min-teachers", "1", "--calibrate", "none", "--out", f"{BUCKET}/fused")
    run("fuse", f"{BUCKET}/labels", "--min-teachers", "1", "--calibrate", "none", "--out", f"{BUCKET}/fused")
    run("fuse", "labels", "--min-teachers", "1", "--calibrate", "none", "--out", "fused")
    fused = LabelStore.open(f"{BUCKET}/fused")
    assert fused.digest == LabelStore.open(Path("fused")).digest
    assert read_fusion(fused).report.rows == 6
    run("audit", f"{BUCKET}/fused")
    assert kind_of(f"{BUCKET}/labels") == "labels"
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["audit.html", "fused", "labels", "pool"]


def test_an_altered_store_is_mended_by_the_same_command(here: Path, capsys: pytest.CaptureFixture[str]):
    run("pool", f"{BUCKET}/photographs", "--out", "pool")
    words = ("label", "pool", "--teacher", OWN, "--out", f"{BUCKET}/labels", "--shards", "3")
    run(*words)
    digest = LabelStore.open(f"{BUCKET}/labels").digest
    files = remote.names_below(LabelStore.open(f"{BUCKET}/labels").folder)  # type: ignore[arg-type]
    victim = next(name for name in files if name.startswith("shard-00001/labels"))
    fsspec.filesystem("memory").pipe_file(f"{BUCKET}/labels/{victim}", b"altered")
    assert run_cli(app, ["audit", f"{BUCKET}/labels"]) == 1
    assert "labels.parquet does not match its recorded SHA-256" in capsys.readouterr().out
    run(*words)
    assert LabelStore.open(f"{BUCKET}/labels").digest == digest
    run("audit", f"{BUCKET}/labels")


def test_a_store_without_conditional_puts_has_one_writer(here: Path, monkeypatch: pytest.MonkeyPatch):
    from teachers.label import label

    run("pool", f"{BUCKET}/photographs", "--out", "pool")
    monkeypatch.setattr(remote, "has_conditional_put", lambda _folder: False)
    monkeypatch.setattr("pseudo_labels.claims._SETTLED_S", 0.01)
    for share in (OpenShards(), Part(1, 2)):
        with pytest.raises(PocketiqaError, match=r"no conditional put.*one process alone may write it"):
            label("pool", OWN, f"{BUCKET}/single", shards=3, share=share)
    alone = label("pool", OWN, f"{BUCKET}/single", shards=3)
    assert alone.digest == label("pool", OWN, "local", shards=3).digest
    assert [name for name in remote.names_below(alone.folder) if name.startswith(".")] == []  # type: ignore[arg-type]
