"""Moves: nothing is lost or replaced, whatever is in the way and whenever the process is killed."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pseudo_labels import moves
from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError, StorageFullError
from pseudo_labels.moves import JOURNAL, Move, journal_in, move, recorded, same_bytes, undo
from tests.helpers.tmpfs import small_disk
from tests.test_architecture import ROOT


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    source, target = tmp_path / "from", tmp_path / "to"
    source.mkdir()
    for number in range(4):
        (source / f"{number}.jpg").write_bytes(bytes([number]) * 1000)
        os.utime(source / f"{number}.jpg", ns=(1, 10**18 + number))
    return source, target


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def wanted(source: Path, target: Path) -> list[Move]:
    return [Move(path, target / path.name) for path in sorted(source.iterdir())]


def move_all(source: Path, target: Path) -> None:
    with journal_in(target) as journal:
        for one in wanted(source, target):
            journal.move(one)


def test_moved_and_back_is_as_before(folders: tuple[Path, Path]):
    source, target = folders
    before = state(source)
    move_all(source, target)
    assert list(source.iterdir()) == []
    moved = state(target)
    assert set(moved) == {*before, JOURNAL}
    assert {name: moved[name] for name in before} == before
    assert undo(target, dry_run=True).back == undo(target / JOURNAL).back != ()
    assert state(source) == before
    assert list(target.iterdir()) == []
    with pytest.raises(PocketiqaError, match=r"no undo file at .*: name the folder that files were moved to"):
        undo(target)


def test_only_the_last_run_goes_back_if_that_is_wanted(folders: tuple[Path, Path]):
    source, target = folders
    first, *rest = wanted(source, target)
    for run in ([first], rest):
        with journal_in(target) as journal:
            for one in run:
                journal.move(one)
    assert {one.source.name for one in undo(target, last=True).back} == {one.source.name for one in rest}
    assert [path.name for path in target.iterdir() if path.name != JOURNAL] == [first.source.name]
    assert undo(target).back == (first,)


def test_what_is_in_the_way_stays_and_so_does_the_line(folders: tuple[Path, Path]):
    source, target = folders
    move_all(source, target)
    (source / "0.jpg").write_bytes(b"another")
    (target / "1.jpg").unlink()
    result = undo(target)
    assert {one.source.name for one in result.back} == {"2.jpg", "3.jpg"}
    assert {one.source.name: reason for one, reason in result.refused} == {
        "0.jpg": "another file has its old name now",
        "1.jpg": "it is in neither place any more",
    }
    assert (source / "0.jpg").read_bytes() == b"another"
    assert len(recorded(target)) == 2
    (source / "0.jpg").unlink()
    (target / "1.jpg").write_bytes(b"restored")
    assert len(undo(target).back) == 2
    assert not (target / JOURNAL).exists()


def test_the_folder_that_files_came_from_is_made_again(folders: tuple[Path, Path]):
    source, target = folders
    move_all(source, target)
    source.rmdir()
    assert len(undo(target).back) == 4
    assert len(list(source.iterdir())) == 4


def test_a_name_that_is_taken_is_never_replaced(folders: tuple[Path, Path]):
    source, target = folders
    target.mkdir()
    (target / "0.jpg").write_bytes(b"mine")
    with pytest.raises(OutputConflictError, match="exists already"):
        move(source / "0.jpg", target / "0.jpg")
    assert (target / "0.jpg").read_bytes() == b"mine"
    assert (source / "0.jpg").exists()
    os.symlink(source / "0.jpg", source / "link.jpg")
    with pytest.raises(PocketiqaError, match="is a symbolic link, which is not moved"):
        move(source / "link.jpg", target / "link.jpg")


def test_without_hard_links_nothing_is_replaced_either(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    """As on memory cards, whose file system has none."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    source, target = folders
    target.mkdir()
    (target / "0.jpg").write_bytes(b"mine")
    with pytest.raises(OutputConflictError, match="exists already"):
        move(source / "0.jpg", target / "0.jpg")
    move(source / "1.jpg", target / "1.jpg")
    assert (target / "0.jpg").read_bytes() == b"mine"
    assert (target / "1.jpg").read_bytes() == b"\1" * 1000


def test_to_another_disk_and_back(folders: tuple[Path, Path], tmp_path: Path):
    source, _ = folders
    before = state(source)
    with small_disk(tmp_path / "disk", kib=256) as disk:
        move_all(source, disk / "in")
        assert list(source.iterdir()) == []
        assert {name: one for name, one in state(disk / "in").items() if name != JOURNAL} == before
        # As if killed between the copy and the removal: both are there, and the next run or undo ends it.
        (source / "0.jpg").write_bytes((disk / "in/0.jpg").read_bytes())
        with journal_in(disk / "in") as journal:
            assert journal.is_unfinished(Move(source / "0.jpg", disk / "in/0.jpg"))
            journal.move(Move(source / "0.jpg", disk / "in/0.jpg"))
        assert not (source / "0.jpg").exists()
        (source / "1.jpg").write_bytes((disk / "in/1.jpg").read_bytes())
        assert undo(disk / "in").refused == ()
        assert {name: data for name, (data, _) in state(source).items()} == {
            name: data for name, (data, _) in before.items()
        }
        (source / "large.jpg").write_bytes(bytes(500_000))
        with pytest.raises(StorageFullError, match="no space left"), journal_in(disk) as journal:
            journal.move(Move(source / "large.jpg", disk / "large.jpg"))
        assert (source / "large.jpg").stat().st_size == 500_000
        assert not (disk / "large.jpg").exists()


def test_a_torn_last_line_is_cut_and_an_altered_one_is_refused(folders: tuple[Path, Path]):
    source, target = folders
    move_all(source, target)
    whole = (target / JOURNAL).read_bytes()
    (target / JOURNAL).write_bytes(whole + b'{"from": "/x", "t')
    with journal_in(target):
        pass
    assert (target / JOURNAL).read_bytes() == whole
    (target / JOURNAL).write_bytes(whole.replace(b"2.jpg", b"9.jpg", 1))
    for use in (lambda: undo(target), lambda: journal_in(target).__enter__()):
        with pytest.raises(IntegrityError, match="was altered"):
            use()
    (target / JOURNAL).write_text(json.dumps({"format": 9, "kind": "moves"}) + "\n")
    with pytest.raises(PocketiqaError, match="has format 9, but this pocketiqa reads 1: upgrade"):
        undo(target)
    (target / JOURNAL).write_text('{"a": 1}\n')
    with pytest.raises(PocketiqaError, match="is no undo file of pocketiqa"):
        undo(target)


def test_nothing_moved_leaves_no_journal_and_no_folder(tmp_path: Path):
    with journal_in(tmp_path / "new"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_move_into_one_folder(folders: tuple[Path, Path]):
    _, target = folders
    program = "import sys, pathlib\nfrom pseudo_labels.moves import journal_in\n"
    program += "with journal_in(pathlib.Path(sys.argv[1])): pass"
    with journal_in(target):
        line = [sys.executable, "-c", program, str(target)]
        done = subprocess.run(line, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert "another process is writing" in done.stderr


KILLED = """
import sys
from pathlib import Path
from pseudo_labels.moves import Move, journal_in
source, target = map(Path, sys.argv[1:])
with journal_in(target) as journal:
    for path in sorted(source.iterdir()):
        journal.move(Move(path, target / path.name))
"""


def test_killed_at_any_moment_every_file_is_there_once_undone(tmp_path: Path):
    source, target = tmp_path / "from", tmp_path / "to"
    source.mkdir()
    contents = {f"{number}.jpg": bytes([number % 256]) * 100 for number in range(90)}
    for name, data in contents.items():
        (source / name).write_bytes(data)
    for kill in range(3):
        line = [sys.executable, "-c", KILLED, str(source), str(target)]
        with subprocess.Popen(line, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
            while process.poll() is None and len(list(source.iterdir())) > 80 - 25 * kill:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        there = {**{path.name: path for path in source.iterdir()}, **{path.name: path for path in target.iterdir()}}
        assert {name: there[name].read_bytes() for name in contents} == contents
    undo(target)
    assert {path.name: path.read_bytes() for path in source.iterdir()} == contents
    assert list(target.iterdir()) == []


def test_a_run_that_was_killed_is_known_until_it_is_undone_or_ended(folders: tuple[Path, Path]):
    source, target = folders
    move_all(source, target)
    assert not moves.was_stopped(target)
    lines = (target / JOURNAL).read_bytes().splitlines(keepends=True)
    (target / JOURNAL).write_bytes(b"".join(lines[:-1]))
    assert moves.was_stopped(target)
    (target / "0.jpg").rename(source / "0.jpg")
    move_all(source, target)
    assert not moves.was_stopped(target)
    undo(target)
    assert not moves.was_stopped(target)


def test_same_bytes(tmp_path: Path):
    for name, data in (("a", b"x" * 3_000_000), ("b", b"x" * 3_000_000), ("c", b"x" * 2_999_999 + b"y"), ("d", b"")):
        (tmp_path / name).write_bytes(data)
    assert same_bytes(tmp_path / "a", tmp_path / "b")
    assert not same_bytes(tmp_path / "a", tmp_path / "c")
    assert not same_bytes(tmp_path / "a", tmp_path / "d")
    assert not same_bytes(tmp_path / "a", tmp_path / "none")
    assert not same_bytes(tmp_path, tmp_path)
    assert moves.JOURNAL == "pocketiqa-undo.jsonl"  # named in the documentation
