"""Folders of a run, outputs that are made once, and the line that a stage prints."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from distill.stages.context import Run, Stage, command_line, is_complete, make_once, open_run, walk
from pseudo_labels.errors import OutputConflictError
from pseudo_labels.parallel import Progress


def test_every_output_of_a_run_lies_in_its_folder(tiny_run: Run):
    folders = (tiny_run.pool, tiny_run.synthetic, tiny_run.labels, tiny_run.training, tiny_run.evaluation)
    assert all(folder.parent == tiny_run.out and is_complete(folder) for folder in folders)
    assert tiny_run.model == tiny_run.out / "export" / "tiny-student.onnx"
    assert tiny_run.labelled_pool == tiny_run.synthetic
    assert not is_complete(tiny_run.out / "nothing")


def test_the_command_repeats_the_run(tmp_path: Path):
    run = open_run("tiny", tmp_path / "out", ["distill.steps=7"])
    assert run.command == f"pocketiqa run tiny --set distill.steps=7 --out {tmp_path / 'out'}"
    assert run.recipe.distill is not None
    assert (run.out, run.recipe.distill.steps) == (tmp_path / "out", 7)


@pytest.mark.parametrize("word", ["name=it's", 'pool.sources=["a b", "$HOME"]', "name=`date`"])
def test_the_command_can_be_pasted_into_a_shell(tmp_path: Path, word: str):
    words = ["pocketiqa", "run", "my tiny.yaml", "--set", word, "--out", str(tmp_path / "an out")]
    command = command_line("run", "my tiny.yaml", [word], tmp_path / "an out")
    shown = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == words


def test_several_teachers_have_folders_of_their_own(tmp_path: Path):
    fit = "{teacher: qfm_iqm, sources: [{ratings: 'csv:x.csv'}]}"
    settings = [f"teachers={{one: {fit}, two: {fit}}}", "fuse={}", "label={}", "score=null"]
    run = open_run("tiny", tmp_path, settings)
    assert [run.fitting_of(name).name for name in run.recipe.fits] == ["fit-one", "fit-two"]
    assert [run.labels_of(name).name for name in run.recipe.labellers] == ["labels-one", "labels-two"]
    assert run.fitted_teacher == tmp_path / "teacher"


def test_an_output_is_made_once_and_refused_when_its_settings_changed(tmp_path: Path):
    calls: list[Path] = []

    def make(folder: Path) -> dict[str, Any]:
        calls.append(folder)
        return {"made": len(calls)}

    first = make_once(tmp_path / "out", "test", {"size": 1}, make, overwrite=False)
    assert make_once(tmp_path / "out", "test", {"size": 1}, make, overwrite=False).digest == first.digest
    assert len(calls) == 1
    with pytest.raises(OutputConflictError, match="size: 1 -> 2"):
        make_once(tmp_path / "out", "test", {"size": 2}, make, overwrite=False)
    assert make_once(tmp_path / "out", "test", {"size": 2}, make, overwrite=True).content == {"made": 2}


def test_an_interrupted_output_is_made_from_the_start(tmp_path: Path):
    def fail(folder: Path) -> dict[str, Any]:
        raise RuntimeError("stopped in the middle")

    with pytest.raises(RuntimeError):
        make_once(tmp_path / "out", "test", {}, fail, overwrite=False)
    assert not is_complete(tmp_path / "out")
    assert make_once(tmp_path / "out", "test", {}, lambda _: {"made": 1}, overwrite=False).content == {"made": 1}


def test_a_stage_says_whether_it_was_done_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def make(overwrite: bool, report: Progress) -> str:
        report(1, 1)
        make_once(tmp_path / "out", "test", {}, lambda _: {}, overwrite=overwrite)
        return "three images"

    stage = Stage("draw", tmp_path / "out", make)
    walk(stage, overwrite=False)
    assert "draw      three images (0 s)" in capsys.readouterr().out
    walk(stage, overwrite=False)
    assert "three images (unchanged, skipped)" in capsys.readouterr().out


def test_a_changed_stage_is_made_anew_only_when_that_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def stage(size: int) -> Stage:
        def make(overwrite: bool, report: Progress) -> str:
            make_once(tmp_path / "out", "test", {"size": size}, lambda _: {}, overwrite=overwrite)
            return f"size {size}"

        return Stage("draw", tmp_path / "out", make)

    walk(stage(1), overwrite=False)
    with pytest.raises(OutputConflictError):
        walk(stage(2), overwrite=False)
    walk(stage(2), overwrite=True)
    printed = capsys.readouterr()
    assert "draw is made anew: " in printed.err
    assert "size 2 (0 s)" in printed.out
