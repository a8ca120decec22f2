"""Addresses as paths that never become local ones, and requests that are repeated."""

import errno
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from pseudo_labels import remote
from pseudo_labels.errors import PocketiqaError, WriteError
from pseudo_labels.remote import Address, location


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.001)
    yield
    fsspec.filesystem("memory").store.clear()


def at(name: str, scheme: str = "memory") -> Address:
    return cast(Address, location(f"{scheme}://bucket/{name}"))


@pytest.mark.parametrize(
    ("spelled", "shown"),
    [
        ("s3://bucket/labels", "s3://bucket/labels"),
        (Path("s3://bucket/labels"), "s3://bucket/labels"),  # of which the slashes were folded
        (Path("gs://bucket") / "a" / "b", "gs://bucket/a/b"),
        ("az://container/x/", "az://container/x"),
        ("sftp://me@host:22/data/labels", "sftp://me@host:22/data/labels"),
    ],
)
def test_addresses_are_known_and_shown_as_they_are_written(spelled: str | Path, shown: str):
    address = location(spelled)
    assert isinstance(address, Address)
    assert str(address) == shown
    assert str(address / "shard" / "x.json") == f"{shown}/shard/x.json"
    assert isinstance((address / "x").parent, Address)
    assert address == location(shown)
    assert location(address) is address
    assert address.resolve() is address
    copied = pickle.loads(pickle.dumps(address))
    assert (type(copied), str(copied)) == (Address, shown)


@pytest.mark.parametrize("path", ["labels", "/abs/labels", "a:/b", "s3:/bucket/x", Path("x/s3:/y"), "x/http://y", ""])
def test_paths_stay_paths(path: str | Path):
    assert not isinstance(location(path), Address)
    assert location(path) == Path(path)


def test_files_of_this_machine_are_paths():
    assert location("file:///data/x") == location(Path("file:///data/x")) == Path("/data/x")


def test_a_folder_of_such_a_name_is_a_path_unless_the_address_is_spelled_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:").mkdir()
    assert not isinstance(location(Path("s3:/bucket/x")), Address)
    assert isinstance(location("s3://bucket/x"), Address)


def test_an_address_is_never_opened_as_a_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    local: list[Callable[[], object]] = [
        lambda: os.open(at("x"), os.O_RDONLY), lambda: os.mkdir(at("x")), lambda: os.listdir(at("x")),
        lambda: os.stat(at("x")), lambda: at("x").touch(), lambda: at("x").write_bytes(b""),
    ]  # fmt: skip
    for opened in local:
        with pytest.raises(PocketiqaError, match="memory://bucket/x is an address, and a local path is needed here"):
            opened()
    assert list(tmp_path.iterdir()) == []


def test_objects_are_read_and_listed_like_files():
    remote.write(at("a/one"), b"1")
    remote.write(at("a/b/two"), b"22")
    assert at("a").is_dir()
    assert at("a").exists()
    assert not at("a").is_file()
    assert at("a/one").is_file()
    assert at("a/b/two").stat().st_size == 2
    assert at("a/b/two").read_bytes() == b"22"
    assert [str(path) for path in at("a").iterdir()] == ["memory://bucket/a/b", "memory://bucket/a/one"]
    assert remote.names_below(at("a")) == ["b/two", "one"]
    assert remote.names_below(at("none")) == []
    remote.remove_all(at("a"), ["one", "gone"])
    assert remote.names_below(at("a")) == ["b/two"]
    with pytest.raises(FileNotFoundError):
        at("a/one").read_bytes()
    with pytest.raises(FileNotFoundError):
        at("a/one").unlink()


def test_an_object_is_made_once():
    assert remote.has_conditional_put(at("claims"))
    assert remote.create(at("claims/x"), b"mine")
    assert remote.create(at("claims/x"), b"mine")  # as after an answer that was lost
    assert not remote.create(at("claims/x"), b"other")
    assert at("claims/x").read_bytes() == b"mine"
    assert remote.names_below(at("claims")) == ["x"]  # the trial of the store has left nothing


class Flaky(MemoryFileSystem):
    """Fails so often before it answers."""

    protocol = "flaky"
    failures = 0
    error: Exception = OSError(errno.EBUSY, "slow down")
    asked = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        Flaky.asked += 1
        if Flaky.asked <= Flaky.failures:
            raise Flaky.error
        return b"answer"


fsspec.register_implementation("flaky", Flaky, clobber=True)


@pytest.mark.parametrize(
    "error", [OSError(errno.EBUSY, "slow down"), TimeoutError("no answer"), ConnectionResetError(), RuntimeError("?")]
)
def test_a_request_is_made_again_until_it_is_answered(error: Exception, monkeypatch: pytest.MonkeyPatch):
    pauses: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", pauses.append)
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 1.0)
    monkeypatch.setattr(Flaky, "failures", 6)
    monkeypatch.setattr(Flaky, "error", error)
    monkeypatch.setattr(Flaky, "asked", 0)
    assert at("x", "flaky").read_bytes() == b"answer"
    assert len(pauses) == 6
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, (1, 2, 4, 8, 16, 16), strict=True))


@pytest.mark.parametrize(
    ("error", "asked", "words"),
    [
        (OSError(errno.EBUSY, "slow down"), remote.TRIES, "slow down.*, 8 times; what was committed is kept"),
        (PermissionError("Access Denied"), 1, "Access Denied.*check name, rights and credentials"),
        (ValueError("bad"), 1, "ValueError: bad"),
    ],
)
def test_what_does_not_help_is_given_up_with_the_reason(
    error: Exception, asked: int, words: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Flaky, "failures", 1000)
    monkeypatch.setattr(Flaky, "error", error)
    monkeypatch.setattr(Flaky, "asked", 0)
    with pytest.raises(PocketiqaError, match=f"flaky://bucket/x.*{words}"):
        at("x", "flaky").read_bytes()
    assert Flaky.asked == asked


class Disk(LocalFileSystem):
    """A remote file system with folders, whose files are seen while they are written."""

    protocol = "disk"
    root = ""

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        text = str(path)
        return cls.root + text.removeprefix("disk:/") if text.startswith("disk://") else text


fsspec.register_implementation("disk", Disk, clobber=True)


def test_a_file_system_that_is_no_object_store_gets_whole_files_and_no_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Disk, "root", str(tmp_path))
    folder = at("deep", "disk")
    remote.write(folder / "er" / "x", b"1")
    assert (tmp_path / "bucket" / "deep" / "er" / "x").read_bytes() == b"1"
    moved: list[str] = []
    monkeypatch.setattr(Disk, "mv", lambda self, old, new, **_: moved.append(Path(old).name) or os.replace(old, new))
    remote.write(folder / "er" / "x", b"2")
    assert (folder / "er" / "x").read_bytes() == b"2"
    assert len(moved) == 1
    assert moved[0].startswith(".x.")
    assert not remote.has_conditional_put(folder)
    assert remote.create(folder / "y", b"1")
    assert not remote.create(folder / "y", b"2")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://host/labels", "https is only read"),
        ("nosuch://x/y", "no address that can be read or written.*nosuch"),
        ("adl://x/y", "needs another package"),
    ],
)
def test_addresses_that_cannot_be_written_are_refused(address: str, words: str):
    with pytest.raises(PocketiqaError, match=words):
        remote.refuse_unwritable(cast(Address, location(address)))


def test_addresses_of_addresses_are_refused():
    with pytest.raises(PocketiqaError, match="chained addresses"):
        location("zip://a::s3://bucket/b.zip")


def test_a_missing_bucket_is_no_corrupt_shard(monkeypatch: pytest.MonkeyPatch):
    def refuse(self: Any, path: str, value: bytes, **_options: Any) -> None:
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    with pytest.raises(WriteError, match="there is no bucket or folder of this name"):
        remote.write(at("x"), b"")
