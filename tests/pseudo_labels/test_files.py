"""Digests, canonical JSON, and writes that happen whole or not at all, also when the writer is killed."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pseudo_labels.errors import IntegrityError, PocketiqaError, StorageFullError, WriteError
from pseudo_labels.files import (
    canonical_json,
    digest_of,
    explain_write_errors,
    parse_json,
    private_folder,
    read_json,
    sha256_bytes,
    sha256_file,
    staged_folder,
    write_atomic,
)
from tests.helpers.tmpfs import small_disk


def test_sha256_is_that_of_fips_180_4(tmp_path: Path) -> None:
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_bytes(b"abc") == known
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == known
    large = os.urandom(3_000_000)
    (tmp_path / "b").write_bytes(large)
    assert sha256_file(tmp_path / "b") == hashlib.sha256(large).hexdigest()


def test_canonical_json_has_one_spelling() -> None:
    assert canonical_json({"b": [1, 2.5, None, True], "a": "é"}) == (
        '{\n "a": "é",\n "b": [\n  1,\n  2.5,\n  null,\n  true\n ]\n}\n'.encode()
    )
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": "1"})
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            canonical_json({"a": bad})


@pytest.mark.parametrize("name", ["plain", "new\nline", "照片", "quote\"'", os.fsdecode(b"\xff\xe9")])
def test_names_survive_json(tmp_path: Path, name: str) -> None:
    write_atomic(tmp_path / "a.json", canonical_json({name: [name]}))
    assert read_json(tmp_path / "a.json", what="thing") == {name: [name]}


def test_unreadable_json_is_explained(tmp_path: Path) -> None:
    with pytest.raises(PocketiqaError, match=r"no recipe at .*nowhere\.json"):
        read_json(tmp_path / "nowhere.json", what="recipe")
    for content in (b"{", b"", b"\xff\xfe", b"{'a': 1}"):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(IntegrityError, match=r"the recipe at .*a\.json is not valid JSON"):
            read_json(tmp_path / "a.json", what="recipe")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 10_000 + b"]" * 10_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"9" * 5000, "4300 digits"),
        (b"[" + b"0," * 5_000_001 + b"0]", "more than 5000000 values"),
        (b'"' + b"x" * 1_000_000, "Unterminated string"),
    ],
    ids=["lists", "objects", "digits", "values", "text"],
)
def test_hostile_json_is_one_plain_line(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(IntegrityError, match=reason) as caught:
        read_json(tmp_path / "a.json", what="recipe")
    assert len(str(caught.value)) < 300 + len(str(tmp_path))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=reason):
        parse_json(content)
    with pytest.raises(ValueError, match=reason):
        parse_json(content.decode())


def test_a_large_json_file_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "a.json", "wb") as file:
        file.truncate((256 << 20) + 1)
    with pytest.raises(PocketiqaError, match="268435457 bytes, above the limit of 268435456"):
        read_json(tmp_path / "a.json", what="recipe")


def test_values_that_are_nested_too_deeply_have_no_digest() -> None:
    value: list = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match="nested too deeply"):
        digest_of(value)


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    for data in (b"one", b"two" * 100_000, b""):
        write_atomic(tmp_path / "a", data)
        assert (tmp_path / "a").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_explained(number: int) -> None:
    message = r"no space left while writing x: .* run the same command again"
    with pytest.raises(StorageFullError, match=message), explain_write_errors(Path("x")):
        raise OSError(number, "full")


def test_errors_about_other_files_pass() -> None:
    with pytest.raises(PermissionError), explain_write_errors(Path("x")):
        raise PermissionError(errno.EACCES, "no", "/elsewhere/y")
    with pytest.raises(WriteError, match="x cannot be written: no permission; change"), explain_write_errors(Path("x")):
        raise PermissionError(errno.EACCES, "no", "x")


def test_a_full_disk_keeps_the_old_file_and_folder(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kib=128) as disk:
        write_atomic(disk / "file", b"old")
        with staged_folder(disk / "folder") as folder:
            (folder / "a").write_bytes(b"old")
        with pytest.raises(StorageFullError):
            write_atomic(disk / "file", bytes(400_000))
        with pytest.raises(StorageFullError), staged_folder(disk / "folder") as folder:
            (folder / "a").write_bytes(bytes(400_000))
        assert (disk / "file").read_bytes() == b"old"
        assert (disk / "folder/a").read_bytes() == b"old"
        assert sorted(path.name for path in disk.iterdir()) == ["file", "folder"]


def test_staged_folder_appears_whole(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "final"
    with staged_folder(final) as folder:
        (folder / "sub").mkdir()
        (folder / "sub/a").write_text("1")
        assert not final.exists()
    assert (final / "sub/a").read_text() == "1"
    with staged_folder(final) as folder:
        (folder / "b").write_text("2")
    assert [path.name for path in final.iterdir()] == ["b"]
    assert [path.name for path in final.parent.iterdir()] == ["final"]


def test_staged_folder_that_fails_changes_nothing(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "final") as folder:
        (folder / "a").write_text("1")
    (tmp_path / "source").mkdir()
    (tmp_path / "source/b").write_text("2")
    (tmp_path / "source/broken").symlink_to("nowhere")
    with pytest.raises(shutil.Error), staged_folder(tmp_path / "final") as folder:
        shutil.copytree(tmp_path / "source", folder / "half")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["final", "source"]
    assert [path.name for path in (tmp_path / "final").iterdir()] == ["a"]


@pytest.mark.parametrize("locked", [False, True])
def test_a_private_folder_that_another_one_removes_before_its_lock_is_made_again(
    locked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, taken = os.open, list[str]()

    def open_late(path: str | Path, flags: int, mode: int = 0o777) -> int:
        descriptor = opened(path, flags, mode) if locked else -1
        if not taken:  # what remove_leftovers of another process does, before this one opens it or just after
            taken.append(str(path))
            os.rmdir(path)
        return descriptor if locked else opened(path, flags, mode)

    monkeypatch.setattr(os, "open", open_late)
    with private_folder(tmp_path / "final") as folder:
        monkeypatch.undo()
        assert folder.is_dir()
        assert [str(folder)] != taken
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".final.123.staged").mkdir()
    (tmp_path / ".other.123.staged").mkdir()
    with staged_folder(tmp_path / "final"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.123.staged", "final"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_killed_writer_leaves_the_old_or_the_new(tmp_path: Path, kind: str) -> None:
    endless = {
        "file": "for n in count(): write_atomic(target, bytes([n % 10]) * 300_000)",
        "folder": (
            "for n in count():\n    with staged_folder(target.with_name(f'target{n}')) as folder:\n"
            "        for name in 'ab': (folder / name).write_bytes(bytes(100_000))"
        ),
    }[kind]
    imports = "import sys\nfrom itertools import count\nfrom pathlib import Path\nfrom pseudo_labels.files import *\n"
    code = f"{imports}target = Path(sys.argv[1])\n{endless}"
    for attempt in range(6):
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "target")]) as writer:
            while not any(tmp_path.glob("target*")):
                assert writer.poll() is None
            try:
                writer.wait(0.01 * attempt)
            except subprocess.TimeoutExpired:
                writer.send_signal(signal.SIGKILL)
        if kind == "file":
            data = (tmp_path / "target").read_bytes()
            assert len(data) == 300_000
            assert len(set(data)) == 1
        for folder in tmp_path.glob("target?"):
            assert {path.name: len(path.read_bytes()) for path in folder.iterdir()} in (
                {"a": 100_000, "b": 100_000},
                {},
            )


def test_json_is_read_as_json_reads_it(tmp_path: Path) -> None:
    value = {"list": [1, -2.5e-7, "x"], "nested": {"a": None, "b": [True, False]}}
    write_atomic(tmp_path / "a.json", canonical_json(value))
    assert json.loads((tmp_path / "a.json").read_text()) == read_json(tmp_path / "a.json", what="thing") == value
