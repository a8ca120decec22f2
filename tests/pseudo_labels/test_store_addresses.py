"""Label stores that have an address: what they promise, in a store of objects in memory."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import fsspec
import pytest

from pseudo_labels import remote
from pseudo_labels.errors import IntegrityError, OutputConflictError
from pseudo_labels.remote import Address, location
from pseudo_labels.shards import parquet_bytes
from pseudo_labels.store import LabelStore
from tests.pseudo_labels.test_store import SPEC, WITH_FEATURES, filled, labels_of, write


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("POCKETIQA_CACHE", str(tmp_path / "cache"))
    yield
    fsspec.filesystem("memory").store.clear()


def at(name: str) -> Address:
    return cast(Address, location(f"memory://bucket/{name}"))


def data_objects(store: LabelStore) -> list[str]:
    return [name for name in remote.names_below(cast(Address, store.folder)) if name.startswith("shard-")]


def test_a_store_in_a_bucket_is_that_of_a_disk(tmp_path: Path):
    local, store = filled(tmp_path / "labels"), filled(at("same"))
    assert store.digest == local.digest
    again = LabelStore.open(at("same"))
    assert parquet_bytes(again.labels()) == parquet_bytes(local.labels())
    assert again.shard_features(1)["map"].tobytes() == local.shard_features(1)["map"].tobytes()
    assert again.verify() == []
    assert again.pool_path == at("pool")
    # A marker for each shard, its files under names of their own, and no claim left.
    assert remote.names_below(at("same"))[:4] == [
        "manifest.json", "markers/shard-00000.json", "markers/shard-00001.json", "markers/shard-00002.json"
    ]  # fmt: skip
    assert len(data_objects(store)) == 9
    with pytest.raises(OutputConflictError, match=r"features: .*map"):
        LabelStore.create(at("same"), SPEC, pool_path=tmp_path)
    assert LabelStore.create(at("same"), SPEC, pool_path=tmp_path, overwrite=True).missing() == [0, 1, 2]
    assert remote.names_below(at("same")) == ["manifest.json"]


def test_what_has_no_marker_is_not_there_and_is_swept_when_the_store_is_finished(tmp_path: Path):
    store = LabelStore.create(at("half"), WITH_FEATURES, pool_path=tmp_path)
    # What a killed writer leaves: files, and no marker.
    remote.write(at("half") / "shard-00001" / "labels-0123456789abcdef.parquet", b"half")
    assert store.missing() == [0, 1, 2]
    for index in range(3):
        write(store, index)
    store.finish()
    assert store.digest == filled(tmp_path / "labels").digest
    assert not any("0123456789abcdef" in name for name in data_objects(store))


def test_a_late_writer_neither_wins_nor_spoils_the_shard(tmp_path: Path):
    first = LabelStore.create(at("late"), SPEC, pool_path=tmp_path)
    late = LabelStore.open(at("late"))
    write(first, 0)
    write(late, 0)  # the same labels: nothing happens
    other = labels_of(first.shard_rows(0))
    with pytest.raises(OutputConflictError, match="committed already"):
        late.write_shard(0, [*other[:-1], labels_of(range(9, 10))[0]])
    assert first.verify() == []
    assert first.shard_labels(0)["id"].to_pylist() == [f"id{row}" for row in first.shard_rows(0)]


def test_an_altered_object_is_found_and_made_anew(tmp_path: Path):
    store = filled(at("altered"))
    store.labels()  # now copies are in the cache, which must not hide it
    victim = next(name for name in data_objects(store) if name.startswith("shard-00002/labels"))
    data = bytearray((at("altered") / victim).read_bytes())
    data[len(data) // 2] ^= 1
    remote.write(at("altered") / victim, bytes(data))
    fault = LabelStore.open(at("altered")).verify()
    assert [(one.index, one.reason) for one in fault] == [(2, "labels.parquet does not match its recorded SHA-256")]
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(IntegrityError, match="shard 2 of memory://bucket/altered was altered"):
        LabelStore.open(at("altered")).labels()
    mended = LabelStore.open(at("altered"))
    mended.discard(2)
    write(mended, 2)
    mended.finish()
    assert mended.digest == filled(tmp_path / "labels").digest


def test_a_finished_store_is_read_from_the_cache_though_its_objects_are_gone(tmp_path: Path):
    store = filled(at("cached"))
    before = parquet_bytes(store.labels())
    for name in data_objects(store):
        (at("cached") / name).unlink()
    assert parquet_bytes(store.labels()) == before
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(IntegrityError, match="cannot be read"):
        store.labels()


def test_a_copy_that_was_damaged_on_this_machine_is_fetched_again(tmp_path: Path):
    before = parquet_bytes(filled(at("rotten")).labels())
    copies = sorted((tmp_path / "cache").rglob("labels.parquet"))
    assert len(copies) == 3
    for copy in copies:
        copy.write_bytes(b"rotten")
    assert parquet_bytes(LabelStore.open(at("rotten")).labels()) == before
    assert LabelStore.open(at("rotten")).verify() == []


def test_a_store_that_was_begun_is_gone_on_with_and_the_pool_is_found(tmp_path: Path):
    begun = LabelStore.create(at("begun"), SPEC, pool_path=tmp_path / "pool")
    write(begun, 1)
    again = LabelStore.create(at("begun"), SPEC, pool_path=at("pool"))
    assert again.missing() == [0, 2]
    assert (begun.pool_path, again.pool_path) == (tmp_path / "pool", at("pool"))
    for index in again.missing():
        write(again, index)
    again.finish()
    assert again.digest == filled(tmp_path / "labels", SPEC).digest
