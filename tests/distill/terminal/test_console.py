import io
import re
from pathlib import Path

import pytest
import typer
from rich.console import Console

from distill.terminal import console
from pseudo_labels.errors import PocketiqaError


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
