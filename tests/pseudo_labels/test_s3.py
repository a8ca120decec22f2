"""Label stores on a real S3 server: equal to those of a disk, whatever the network does and whoever is killed."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from pseudo_labels import remote
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import is_leftover
from pseudo_labels.pool import Pool
from pseudo_labels.remote import Address, location
from pseudo_labels.shards import parquet_bytes
from pseudo_labels.store import LabelStore
from teachers.label import label
from tests.helpers.killing import kill_and_resume
from tests.helpers.labelling import label_folder
from tests.helpers.pools import clean_pool
from tests.helpers.s3_server import FAULTS, S3, s3_server

OWN = "tests.helpers.own_teacher:build"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server("bucket") as server:
        yield server


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETIQA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return clean_pool(tmp_path_factory.mktemp("pool"), images=6, max_side=64)


def at(name: str) -> Address:
    return cast(Address, location(f"s3://bucket/{name}"))


def test_the_server_takes_one_of_two_markers(s3: S3):
    assert remote.has_conditional_put(at("x"))
    assert remote.create(at("x/marker"), b"first")
    assert not remote.create(at("x/marker"), b"second")
    assert at("x/marker").read_bytes() == b"first"
    assert [remote.names_below(at("x")), at("x").is_dir(), at("y").exists()] == [["marker"], True, False]


def test_a_folder_that_a_console_made_is_an_empty_one(s3: S3, pool: Pool):
    system, _ = remote._opened(at("console"))  # pyright: ignore[reportPrivateUsage]
    system.call_s3("put_object", Bucket="bucket", Key="console/", Body=b"")
    assert list(at("console").iterdir()) == []
    assert remote.names_below(at("console")) == []
    system.call_s3("put_object", Bucket="bucket", Key="console//stray", Body=b"1")
    label(pool.folder, OWN, "s3://bucket/labels-of-console", shards=1)
    system.call_s3("put_object", Bucket="bucket", Key="labels-of-console//stray", Body=b"1")
    again = label(pool.folder, OWN, "s3://bucket/labels-of-console", shards=2, overwrite=True)
    assert (again.manifest.complete, again.spec.shards) == (True, 2)


def test_labels_are_whole_though_every_fifth_answer_fails_is_lost_or_slow(s3: S3, pool: Pool, tmp_path: Path):
    local = label(pool.folder, OWN, tmp_path / "labels", shards=3, features=True)
    s3.faults.seen.clear()
    s3.faults.fraction = 0.2
    try:
        store = label(pool.folder, OWN, "s3://bucket/faults", shards=3, features=True)
        assert store.digest == local.digest
        table = LabelStore.open(at("faults")).labels()
    finally:
        s3.faults.fraction = 0.0
    assert parquet_bytes(table) == parquet_bytes(local.labels())
    assert s3.faults.seen.keys() > set(FAULTS), s3.faults.seen
    names = remote.names_below(at("faults"))
    assert [name for name in names if name.startswith(".")] == []
    assert len(names) == 1 + 3 + 3 * 3


def test_a_labelling_that_is_killed_loses_and_doubles_nothing(s3: S3, pool: Pool, tmp_path: Path):
    s3.faults.fraction = 0.05
    try:
        hits = kill_and_resume(
            label_folder,
            [str(pool.folder), "s3://bucket/killed", OWN, 3],
            unbroken_args=[str(pool.folder), str(tmp_path / "labels"), OWN, 3],
            kills=2,
            preload=["s3fs"],
        )
    finally:
        s3.faults.fraction = 0.0
    assert hits == 2
    store, local = LabelStore.open(at("killed")), LabelStore.open(tmp_path / "labels")
    assert store.is_complete
    assert store.digest == local.digest
    assert parquet_bytes(store.labels()) == parquet_bytes(local.labels())
    # But for the object of a killed process that tried whether the store puts conditionally: it counts as no content.
    names = [name for name in remote.names_below(at("killed")) if not is_leftover(Path(name))]
    assert len(names) == 1 + 3 + 3 * 3


def test_a_bucket_that_is_not_there_is_named(s3: S3, pool: Pool):
    with pytest.raises(PocketiqaError, match=r"s3://nowhere/labels.*no bucket"):
        label(pool.folder, OWN, "s3://nowhere/labels", shards=2)
