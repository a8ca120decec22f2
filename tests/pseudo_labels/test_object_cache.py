"""The cache of object stores: whole entries, within its limit, the one used longest ago goes first."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from pseudo_labels import object_cache
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import sha256_bytes
from pseudo_labels.object_cache import held, read_image
from pseudo_labels.records import ImageError


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETIQA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("POCKETIQA_CACHE_GB", "0.000001")  # 1,000 bytes


def key(name: str) -> str:
    return sha256_bytes(name.encode())


def entry_of(size: int, calls: list[int] | None = None, *, sound: bool = True) -> Callable[[Path], bool]:
    def fetch(staged: Path) -> bool:
        (staged / "file").write_bytes(b"x" * size)
        if calls is not None:
            calls.append(size)
        return sound

    return fetch


def use(name: str, size: int = 300, calls: list[int] | None = None) -> None:
    with held(key(name), entry_of(size, calls)) as folder:
        assert (folder / "file").stat().st_size == size


def kept(root: Path) -> set[str]:
    names = {key(name): name for name in "abcdefgh"}
    return {names[path.name[:64]] for path in (root / "cache").glob("??/*") if path.name[:64] in names}


def aged(root: Path, name: str, seconds: int) -> None:
    (path,) = (root / "cache").glob(f"??/{key(name)}-*")
    os.utime(path, (seconds, seconds))


def test_an_entry_is_fetched_once(tmp_path: Path):
    calls: list[int] = []
    for _ in range(3):
        use("a", calls=calls)
    assert calls == [300]
    with held(key("a"), entry_of(20, calls), fresh=True) as folder:
        assert (folder / "file").stat().st_size == 20
    assert calls == [300, 20]
    assert len(list((tmp_path / "cache").glob("??/*"))) == 1


def test_the_entry_used_longest_ago_goes_first_and_the_limit_holds(tmp_path: Path):
    for number, name in enumerate("abc"):
        use(name)
        aged(tmp_path, name, 1000 + number)
    use("a")  # used again: now b is the oldest
    use("d")
    assert kept(tmp_path) == {"a", "c", "d"}
    use("e", 900)
    assert kept(tmp_path) == {"e"}
    use("f", 1001)  # larger than all of the cache: given, and not kept
    assert kept(tmp_path) == {"e"}
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("file")) <= 1000


def test_what_is_in_use_stays(tmp_path: Path):
    with held(key("a"), entry_of(600)) as folder:
        use("b", 600)
        assert (folder / "file").stat().st_size == 600
    use("c", 600)
    assert kept(tmp_path) <= {"b", "c"}


def test_what_is_not_what_was_wanted_is_given_but_not_kept(tmp_path: Path):
    with held(key("a"), entry_of(10, sound=False)) as folder:
        assert (folder / "file").is_file()
    assert kept(tmp_path) == set()
    assert list((tmp_path / "cache").rglob("file")) == []


def test_a_fetch_that_fails_leaves_nothing_and_leftovers_of_the_dead_go(tmp_path: Path):
    def fail(staged: Path) -> bool:
        (staged / "file").write_bytes(b"half")
        raise PocketiqaError("the store is down")

    with pytest.raises(PocketiqaError, match="down"), held(key("a"), fail):
        pass
    shelf = tmp_path / "cache" / key("a")[:2]
    assert list(shelf.iterdir()) == []
    (shelf / f".{key('a')}.999999-00ff00ff.staged").mkdir()
    use("a")
    assert [path.name[:64] for path in shelf.iterdir()] == [key("a")]


def test_a_copy_that_somebody_reads_is_not_given_again_where_a_fresh_one_is_asked_for(tmp_path: Path):
    with held(key("a"), entry_of(300)), held(key("a"), entry_of(20), fresh=True) as folder:
        assert (folder / "file").stat().st_size == 20
    with held(key("a"), entry_of(1)) as folder:  # the old one stayed
        assert (folder / "file").stat().st_size == 300


def test_an_image_is_read_without_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "taken").write_bytes(b"a file")
    monkeypatch.setenv("POCKETIQA_CACHE", str(tmp_path / "taken"))
    fsspec.filesystem("memory").pipe_file("memory://cached/b.png", b"pixels")
    assert read_image("memory://cached/b.png", tmp_path, sha256_bytes(b"pixels")) == b"pixels"


def test_entries_are_not_counted_for_each_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POCKETIQA_CACHE_GB", "0.001")
    counted: list[int] = []
    free = object_cache._free  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(object_cache, "_free", lambda size, limit: (counted.append(size), free(size, limit)))
    for number in range(12):
        use(str(number), 2000)
    assert counted == [10_000] * 3


def test_an_error_of_who_uses_it_passes_through():
    with pytest.raises(FileNotFoundError, match="theirs"), held(key("a"), entry_of(1)):
        raise FileNotFoundError("theirs")
    with pytest.raises(FileNotFoundError, match="theirs"), held(key("b"), entry_of(5000)):
        raise FileNotFoundError("theirs")


def test_many_threads_may_use_a_cache_that_is_too_small_for_them():
    errors: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(12):
                use(f"{(first + number) % 5}", 400)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_a_limit_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POCKETIQA_CACHE_GB", text)
    with pytest.raises(PocketiqaError, match=f"POCKETIQA_CACHE_GB is '{text}'"):
        object_cache.cache_limit()


def test_images_of_a_store_are_kept_and_damaged_copies_fetched_again(tmp_path: Path):
    system, address = fsspec.filesystem("memory"), "memory://cached/a.png"
    system.pipe_file(address, b"pixels")
    digest = sha256_bytes(b"pixels")
    assert read_image(address, tmp_path, digest) == b"pixels"
    system.pipe_file(address, b"others")
    assert read_image(address, tmp_path, digest) == b"pixels"
    (copy,) = (tmp_path / "cache").glob("??/*/image")
    copy.write_bytes(b"rotten")
    system.pipe_file(address, b"pixels")
    assert read_image(address, tmp_path, digest) == b"pixels"
    # What is there now is told apart by its digest, by whoever asked.
    system.pipe_file(address, b"others")
    (copy,) = (tmp_path / "cache").glob("??/*/image")
    copy.write_bytes(b"rotten")
    assert read_image(address, tmp_path, digest) == b"others"
    system.rm_file(address)
    with pytest.raises(ImageError):
        read_image(address, tmp_path, sha256_bytes(b"another"))


def test_local_images_and_those_of_unknown_content_are_not_kept(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"local")
    assert read_image("a.png", tmp_path, sha256_bytes(b"local")) == b"local"
    fsspec.filesystem("memory").pipe_file("memory://cached/b.png", b"b")
    assert read_image("memory://cached/b.png", tmp_path, "") == b"b"
    assert not (tmp_path / "cache").exists()
