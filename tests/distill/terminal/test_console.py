import pytest
import typer

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
def test_a_misspelled_command_line_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
):
    assert console.run_cli(_app_raising(PocketiqaError("never reached")), argv) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert "--help" in printed
    assert printed.count("\n") == 1


def test_several_processes_speak_with_one_voice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RANK", raising=False)
    assert console.is_main_process()
    monkeypatch.setenv("RANK", "1")
    assert not console.is_main_process()
