"""Shards of a disk and of an object store: the same promises, the same bytes of markers."""

import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from pseudo_labels import remote, shards
from pseudo_labels.files import sha256_bytes
from pseudo_labels.remote import Address, location
from pseudo_labels.shard_files import ShardFiles, ShardFolders, ShardObjects, shard_files


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("POCKETIQA_CACHE", str(tmp_path / "cache"))
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(params=["disk", "objects"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> ShardFiles:
    if request.param == "disk":
        (tmp_path / "store").mkdir()
        return shard_files(tmp_path / "store")
    return shard_files(location("memory://bucket/store"))


def shard(text: str) -> dict[str, bytes]:
    return shards.with_marker(
        {"labels.parquet": text.encode(), "stats.json": b"{}"}, index=1, rows=4, spec_digest="spec"
    )


def fault(files: ShardFiles, *, fresh: bool = False) -> str:
    with files.opened(1, fresh=fresh) as folder:
        return shards.find_fault(folder, index=1, spec_digest="spec", rows=4, files=["labels.parquet", "stats.json"])


def test_a_shard_is_there_once_it_has_its_marker(files: ShardFiles):
    assert isinstance(files, ShardObjects if isinstance(files.folder, Address) else ShardFolders)
    assert not files.has(1)
    assert files.missing([0, 1, 2]) == [0, 1, 2]
    with pytest.raises(FileNotFoundError):
        files.marker(1)
    assert files.commit(1, shard("a"))
    assert files.has(1)
    assert files.missing([0, 1, 2]) == [0, 2]
    assert files.missing(range(20)) == [0, *range(2, 20)]
    assert files.marker(1) == shard("a")["shard.json"]
    assert fault(files) == ""
    with files.opened(1, sha256_bytes(files.marker(1))) as folder:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == shard("a")
    files.remove(1)
    assert not files.has(1)
    files.remove(1)


def test_the_first_of_two_commits_stays(files: ShardFiles):
    assert files.commit(1, shard("a"))
    assert files.commit(1, shard("a"))
    assert not files.commit(1, shard("b"))
    assert fault(files) == ""
    with files.opened(1) as folder:
        assert (folder / "labels.parquet").read_bytes() == b"a"


def test_a_shard_that_another_process_works_on_is_refused(files: ShardFiles):
    with files.writing(1, wait=True), files.writing(2, wait=True):
        pass
    with files.writing(1, wait=True):
        pass


def test_writers_of_one_shard_never_mix_their_files(monkeypatch: pytest.MonkeyPatch):
    """Both have found no marker, as the claim of one has run out; each puts its files, then one puts the marker."""
    files = shard_files(location("memory://bucket/race"))
    together, won = threading.Barrier(4), []
    create = remote.create

    def both_at_once(address: Address, data: bytes) -> bool:
        together.wait()
        return create(address, data)

    remote.has_conditional_put(location("memory://bucket/race"))  # type: ignore[arg-type]
    monkeypatch.setattr(remote, "create", both_at_once)

    def write(text: str) -> None:
        if files.commit(1, shard(text)):
            won.append(text)

    threads = [threading.Thread(target=write, args=(text,)) for text in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert fault(files) == ""
    with files.opened(1) as folder:
        assert (folder / "labels.parquet").read_bytes() == won[0].encode()
    # What the others have put is no part of the shard, and goes once the store is finished.
    names = remote.names_below(location("memory://bucket/race"))  # type: ignore[arg-type]
    assert len(names) == 1 + 4 + 1
    files.sweep([b"{}", files.marker(1)])
    assert len(remote.names_below(location("memory://bucket/race"))) == 3  # type: ignore[arg-type]
    assert fault(files, fresh=True) == ""


def test_an_object_that_is_gone_or_altered_is_a_fault_that_no_copy_hides():
    files = shard_files(location("memory://bucket/altered"))
    files.commit(1, shard("a"))
    assert fault(files) == ""
    folder = location("memory://bucket/altered") / "shard-00001"
    (labels,) = [path for path in folder.iterdir() if path.name.startswith("labels-")]
    remote.write(labels, b"b")  # type: ignore[arg-type]
    assert fault(files) == ""  # a copy is kept
    assert fault(files, fresh=True) == "labels.parquet does not match its recorded SHA-256"
    labels.unlink()
    assert fault(files, fresh=True).startswith("labels.parquet cannot be read")


@pytest.mark.parametrize("marker", [b"", b"[]", b'{"files": 3}', b'{"files": {"../x": "y"}}', b"\xff"])
def test_a_marker_that_is_not_ours_is_a_fault(marker: bytes):
    files = shard_files(location("memory://bucket/odd"))
    remote.write(location("memory://bucket/odd/markers/shard-00001.json"), marker)  # type: ignore[arg-type]
    assert fault(files) != ""
    files.sweep([b"{}", marker])
