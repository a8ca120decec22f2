import errno
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from rich.console import Console
from rich.table import Table

from distill.terminal import console
from distill.terminal.console import as_text, shown
from pseudo_labels.errors import PocketiqaError
from tests.helpers.pools import write_photographs


def _app_raising(error: BaseException) -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.callback()
    def root() -> None: ...

    @app.command()
    def work(count: int = 1) -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (PocketiqaError("the pool x\nis empty [bold]"), 1, "error: the pool x is empty [bold]\n"),
        (KeyboardInterrupt(), 130, "error: interrupted; run the same command again to resume\n"),
        (
            ZeroDivisionError("by zero"),
            1,
            "error: unexpected ZeroDivisionError: by zero (add --debug for the traceback)\n",
        ),
        (ModuleNotFoundError("No module", name="torch"), 1, "needs the package 'torch', which is not installed"),
        (typer.Exit(3), 3, ""),
    ],
)
def test_an_error_is_one_line_and_a_status(
    capsys: pytest.CaptureFixture[str], error: BaseException, status: int, message: str
):
    assert console.run_cli(_app_raising(error), ["work"]) == status
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == bool(message)


def test_debug_shows_the_traceback_too(capsys: pytest.CaptureFixture[str]):
    assert console.run_cli(_app_raising(PocketiqaError("wrong")), ["--debug", "work"]) == 1
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert printed.endswith("error: wrong\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [(["work", "--cuont", "2"], "--cuont"), (["work", "--count", "two"], "'--count'"), (["wrok"], "wrok")],
)
def test_a_misspelled_command_line_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
):
    assert console.run_cli(_app_raising(PocketiqaError("never reached")), argv) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "--help" in printed
    assert printed.count("\n") == 1


def test_several_processes_speak_with_one_voice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RANK", raising=False)
    assert console.is_main_process()
    monkeypatch.setenv("RANK", "1")
    assert not console.is_main_process()


NAMES = {
    "a:x:b.png": "a:x:b.png",  # the name of an emoji
    "[bold]b.png": "[bold]b.png",
    "[/]": "[/]",
    "esc\x1b[2Jx": "esc\\x1b[2Jx",
    "bell\x07\x08\x0b\x0c": "bell\\x07\\x08\\x0b\\x0c",
    "c1\x9b31m\x85": "c1\\x9b31m\\x85",
    "del\x7f": "del\\x7f",
    "new\nline\r\t": "new\\nline\\r\\t",
    "rtl\u202egnp.png": "rtl\\u202egnp.png",
    "\u2028line": "\\u2028line",
    os.fsdecode(b"bytes\xff.png"): "bytes\\xff.png",
    "猫 \u200d.png": "猫 \u200d.png",
}


@pytest.mark.parametrize(("name", "printed"), NAMES.items())
def test_a_name_is_shown_as_it_is_and_never_raw(capsys: pytest.CaptureFixture[str], name: str, printed: str):
    assert shown(name) == printed
    table = Table("image", box=None, pad_edge=False)
    table.add_row(shown(name))
    assert as_text(table).splitlines()[1].rstrip() == printed
    # Also where a caller forgot it: only line ends of our own pass.
    for stream in (console.out, console.err):
        stream.print(name.replace("\n", ""))
    captured = capsys.readouterr()
    assert captured.out == captured.err == printed.replace("\\n", "") + "\n"


def test_a_table_in_a_pipe_or_file_is_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")  # as GNU readline exports it to child processes
    table = Table("image", "reason", title="t" * 120)
    table.add_row("n" * 300, "r" * 400)
    console.out.print(table)
    for text in (capsys.readouterr().out, as_text(table)):
        assert "n" * 300 in text
        assert "r" * 400 in text
        assert "t" * 120 in text


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EROFS, "error: the disk is read-only at x: choose a folder on another disk, then run the same"),
        (errno.EMFILE, "error: too many open files at x: raise the limit (ulimit -n), or use fewer workers"),
        (errno.ENOSPC, "error: no space left at x: free some space"),
        (errno.EDQUOT, "error: no space left in your quota at x: remove files"),
        (errno.EFBIG, "error: the file is larger than allowed at x: raise the limit (ulimit -f)"),
        (errno.EACCES, "error: no permission at x: change the permissions"),
        (errno.EIO, "error: the disk reports a fault at x: check the disk"),
    ],
)
def test_what_the_system_refuses_is_one_plain_line(capsys: pytest.CaptureFixture[str], number: int, message: str):
    assert console.run_cli(_app_raising(OSError(number, os.strerror(number), "x")), ["work"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(message)
    assert printed.count("\n") == 1


def test_names_in_errors_keep_their_spaces_and_are_never_raw(capsys: pytest.CaptureFixture[str]):
    error = PocketiqaError("no image at 'a  b\r\x1b[2J:x:.png':\n  check the path")
    assert console.run_cli(_app_raising(error), ["work"]) == 1
    assert capsys.readouterr().err == "error: no image at 'a  b\\r\\x1b[2J:x:.png': check the path\n"


def test_too_little_memory_is_one_plain_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(MemoryError) as taken:
        bytearray(1 << 62)
    words = "DefaultCPUAllocator: can't allocate memory: you tried", "x.so: failed to map segment from shared object"
    for error in (taken.value, RuntimeError(words[0]), ImportError(words[1])):
        assert console.run_cli(_app_raising(error), ["work"]) == 1
        assert capsys.readouterr().err.startswith("error: not enough memory: close other programs, or use fewer")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, images=1)
    next(folder.iterdir()).rename(folder / "猫.png")
    return folder


def pocketiqa(
    *words: object, stdout: int = -1, prepare: Callable[[], None] | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-m", "distill.cli", *map(str, words)]
    return subprocess.run(line, stdout=stdout, stderr=-1, preexec_fn=prepare, env=os.environ | environment)


def test_names_outside_the_encoding_are_escaped_and_the_run_goes_on(photographs: Path):
    for file_format in ("table", "csv"):
        done = pocketiqa("score", photographs, "--format", file_format, PYTHONIOENCODING="ascii")
        assert done.returncode == 0
        assert b"\\u732b.png" in done.stdout


@pytest.mark.parametrize("words", [["score", "--format", "table"], ["score", "--format", "csv"], ["--version"]])
def test_a_reader_that_has_read_enough_is_no_error(photographs: Path, words: list[str]):
    read, write = os.pipe()
    os.close(read)
    done = pocketiqa(*words, *([photographs] if words[0] == "score" else []), stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_standard_output_is_no_error(photographs: Path, tmp_path: Path):
    done = pocketiqa("score", photographs, "--out", tmp_path / "x.csv", prepare=lambda: os.close(1))
    assert done.returncode == 0
    assert (tmp_path / "x.csv").read_text().count("\n") == 2
    done = pocketiqa("score", photographs, prepare=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("file_format", ["table", "csv"])
def test_a_full_disk_behind_standard_output_is_an_error(photographs: Path, file_format: str):
    with open("/dev/full", "wb") as full:
        done = pocketiqa("score", photographs, "--format", file_format, stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr.decode().startswith("error: no space left while writing standard output")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("module", "extras"), [("torch", "train"), ("diffusers.models", "train,teachers"), ("piq", "train,teachers")]
)
def test_a_missing_package_names_the_command_for_a_clone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, module: str, extras: str
):
    monkeypatch.chdir(Path(__file__).parents[3])
    assert console.run_cli(_app_raising(ModuleNotFoundError("No module", name=module)), ["work"]) == 1
    assert f"pip install '.[{extras}]'" in capsys.readouterr().err


def test_the_bar_shows_steps_a_second_also_of_slow_steps(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=screen, force_terminal=True, width=120))
    now = [0.0]
    monkeypatch.setattr(console.err, "get_time", lambda: now[0])
    with console.progress("distill") as report:
        for step in range(1, 7):
            now[0] += 40.0
            report(step, 60)
    assert re.findall(r"([0-9.]+)/s", screen.getvalue())[-1] == "0.025"
    assert "36:00" in screen.getvalue()  # 54 steps are left


def test_a_log_file_gets_a_line_a_minute_with_speed_and_time_left(capsys: pytest.CaptureFixture[str]):
    now = [0.0]
    lines = console._Lines("distill", lambda: now[0])
    lines.report(90, 100)  # pixels are read before the first step
    for step in range(1, 121):
        now[0] += 2.0
        lines.report(step, 600)
    printed = capsys.readouterr().err.splitlines()
    assert printed == [
        "distill 31/600, 0.5/s, 19 min left",
        "distill 61/600, 0.5/s, 18 min left",
        "distill 91/600, 0.5/s, 17 min left",
    ]


@pytest.mark.parametrize(("speed", "words"), [(123.4, "123"), (4.21, "4.2"), (0.0463, "0.046")])
def test_a_speed_has_two_digits_that_mean_something(speed: float, words: str):
    assert console.speed_words(speed) == words
