import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.data.examples import Source
from distill.training.environment import ThreadChoice
from distill.training.history import read_history
from distill.training.loop import InterruptedRunError
from distill.training.teacher import fit_teacher
from pseudo_labels.errors import IntegrityError, OutputConflictError
from pseudo_labels.files import exclusive
from pseudo_labels.outputs import read_manifest
from pseudo_labels.pool import Pool
from teachers.fitted_folder import read_fitted_folder
from tests.helpers import fitting
from tests.helpers.fit_runs import (
    STATEFUL,
    checkpoint,
    files,
    fit_folder,
    fitted,
    interrupted,
    ratings,
    run,
    same,
    small_config,
)
from tests.helpers.fitting import base_filters
from tests.helpers.training import texture_pool


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    texture_pool(folder)
    return folder


@pytest.fixture
def source(data: Path) -> Source:
    return ratings(Pool.open(data / "pool"))


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    fit_folder(str(data), str(out), STATEFUL)
    return out


def test_a_run_that_is_being_trained_is_refused_to_others(source: Source, unbroken: Path, tmp_path: Path):
    out = tmp_path / "run"
    interrupted(source, out, 3, **STATEFUL)
    before = files(out)
    with exclusive(out / ".lock", what="it"):
        for overwrite in (False, True):
            with pytest.raises(OutputConflictError, match=r"another process is writing .*run: wait for it or stop"):
                fit_teacher(small_config(**STATEFUL), [source], out, overwrite=overwrite)
    assert files(out) == before  # --overwrite removed nothing either
    run(source, out, **STATEFUL)
    assert files(out) == files(unbroken)
    assert not (out / ".lock").exists()


def test_an_altered_history_is_refused(unbroken: Path, tmp_path: Path):
    shutil.copytree(unbroken, tmp_path / "run")
    path = tmp_path / "run" / "history.jsonl"
    path.write_text(path.read_text().replace('"step": 2', '"step": 3', 1))
    with pytest.raises(IntegrityError, match=r"line \d+ of the history at .*history\.jsonl was altered"):
        read_history(path)


def test_stopped_by_a_signal_it_goes_on_to_the_same_bytes(source: Source, unbroken: Path, tmp_path: Path):
    for step in (1, 3, 4):  # before, at and after a validation
        interrupted(source, tmp_path / "run", step, **STATEFUL)
    assert checkpoint(tmp_path / "run", 4, "beside").keys() == {"memory", "written"}
    run(source, tmp_path / "run", **STATEFUL)
    assert files(tmp_path / "run") == files(unbroken)
    optimizer = checkpoint(tmp_path / "run", 6, "optimizer")
    assert optimizer["model.last.weight.exp_avg_sq"].any()
    assert checkpoint(tmp_path / "run", 6, "beside")["memory"].any()
    assert not same(checkpoint(tmp_path / "run", 6, "average"), checkpoint(tmp_path / "run", 6, "teacher"))


def test_work_after_the_last_checkpoint_is_done_again_the_same(source: Source, unbroken: Path, tmp_path: Path):
    def die(done: int, _: int) -> None:
        if done == 5:
            raise MemoryError("as if killed")

    with pytest.raises(MemoryError):
        fit_teacher(small_config(**STATEFUL), [source], tmp_path / "run", progress=die)
    steps: list[int] = []
    fit_teacher(small_config(**STATEFUL), [source], tmp_path / "run", progress=lambda done, _: steps.append(done))
    assert steps == [5, 6]
    assert files(tmp_path / "run") == files(unbroken)


def test_what_is_not_restored_would_show(source: Source, unbroken: Path, tmp_path: Path):
    """Dropout and memory act on what is learned, so that the comparison of bytes sees them."""
    for number, change in enumerate(({"options__dropout": 0.0}, {"options__extra": 0.0})):
        run(source, tmp_path / str(number), **STATEFUL, **change)
        assert not same(fitted(tmp_path / str(number)), fitted(unbroken)), change


def test_a_checkpoint_that_does_not_fit_the_teacher_is_refused(source: Source, tmp_path: Path):
    """As if a teacher's code had changed under a run: its stamp is the same, its memory is not."""
    interrupted(source, tmp_path / "run", 3, **STATEFUL)
    memory, fitting.MEMORY = fitting.MEMORY, 5
    try:
        with pytest.raises(
            IntegrityError, match="does not fit the teacher it was made for: fit again with --overwrite"
        ):
            run(source, tmp_path / "run", **STATEFUL)
    finally:
        fitting.MEMORY = memory


def test_patience_ends_the_run_at_the_same_step_after_a_resume(source: Source, tmp_path: Path):
    still = {
        "steps": 20, "validate_every_steps": 2, "checkpoint_every_steps": 20, "patience": 2,
        "optimizer__learning_rate": 1e-12,
    }  # fmt: skip
    result = run(source, tmp_path / "run", **still)
    records = read_history(tmp_path / "run" / "history.jsonl")
    assert result.step == 2
    assert (records[-1]["kind"], records[-1]["step"]) == ("validation", 6)
    interrupted(source, tmp_path / "again", 5, **still)
    run(source, tmp_path / "again", **still)
    for name in ("history.jsonl", "manifest.json", "teacher/fitted.safetensors", "teacher/teacher.json"):
        assert files(tmp_path / "again")[name] == files(tmp_path / "run")[name]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    steps: list[int] = []
    again = fit_teacher(
        small_config(**still), [source], tmp_path / "run", progress=lambda done, _: steps.append(done)
    )  # fmt: skip
    assert again == result
    assert steps == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_another_teacher_is_refused_on_resume_but_its_files_may_move(source: Source, tmp_path: Path):
    np.save(tmp_path / "base.npy", base_filters(3))
    np.save(tmp_path / "other.npy", base_filters(4))
    changes = {"options__weights": tmp_path / "base.npy", "options__extra": 0.5}
    interrupted(source, tmp_path / "run", 3, **changes)
    (tmp_path / "base.npy").rename(tmp_path / "moved.npy")
    changes["options__weights"] = str(tmp_path / "moved.npy")
    with pytest.raises(OutputConflictError, match=r"options\.extra: 0\.5 -> 0\.7.*repeat the earlier settings"):
        run(source, tmp_path / "run", **{**changes, "options__extra": 0.7})  # in no stamp: it changes no score
    with pytest.raises(OutputConflictError, match=r"begins_as\.options\.side_px: 0 -> 64"):
        run(source, tmp_path / "run", **changes, options__side_px=64)
    with pytest.raises(OutputConflictError, match=r"begins_as\.weights: "):
        run(source, tmp_path / "run", **{**changes, "options__weights": tmp_path / "other.npy"})
    with pytest.raises(OutputConflictError, match=r"optimizer\.learning_rate: 0\.02 -> 0\.1"):
        run(source, tmp_path / "run", **changes, optimizer__learning_rate=0.1)
    result = run(source, tmp_path / "run", **changes)
    options = read_fitted_folder(str(result.teacher))[1]
    assert options["weights"] == str(tmp_path / "moved.npy")


def test_options_that_change_only_time_and_memory_may_differ_after_a_resume(source: Source, tmp_path: Path):
    sam = {"variant": "tiny", "pretrained": False, "head": "new", "input_side_px": 64, "trainable": "all"}
    changes = {"teacher": "sam_iqa", "steps": 4, "batch_size": 4, "accumulation_steps": 2}
    interrupted(source, tmp_path / "run", 2, **changes, options=sam)
    with pytest.raises(OutputConflictError, match=r"options\.trainable: 'all' -> 'neck'"):
        run(source, tmp_path / "run", **changes, options={**sam, "trainable": "neck"})
    result = run(source, tmp_path / "run", **changes, options={**sam, "checkpoint_blocks": True})
    assert read_fitted_folder(str(result.teacher))[1]["checkpoint_blocks"] is True
    run(source, tmp_path / "unbroken", **changes, options=sam)
    assert same(fitted(tmp_path / "run"), fitted(tmp_path / "unbroken"))


def test_first_weights_without_a_seed_of_their_own_follow_from_the_runs(source: Source, tmp_path: Path):
    interrupted(source, tmp_path / "run", 3, options__seed=None)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run(source, tmp_path / "run", options__seed=None)
    assert torch.equal(torch.rand(3), expected)


def test_threads_that_a_run_chose_are_noted_and_taken_again(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The number is part of what determines the bytes: whatever the load is when the run is resumed."""
    numbers = iter([2, 1])
    used: list[int] = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("distill.training.environment.usable_cores", lambda: 2)
    monkeypatch.setattr("distill.training.environment._measured", lambda most: ThreadChoice(next(numbers), "measured"))
    said: list[str] = []

    def progress(done: int, _: int) -> None:
        used.append(torch.get_num_threads())
        if done == 2 and len(used) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    out, config = tmp_path / "run", small_config(threads=None)
    with pytest.raises(InterruptedRunError):
        fit_teacher(config, [source], out, progress=progress, warn=said.append)
    spec = read_manifest(out).spec
    assert read_manifest(out).notes == {"threads": 2}
    fit_teacher(config, [source], out, progress=progress, warn=said.append)
    assert set(used) == {2}
    assert said == ["measured", "training with 2 CPU threads, as this run began"]
    assert next(numbers) == 1  # nothing was measured again
    assert "threads" not in spec
    fit_teacher(small_config(threads=1), [source], out)  # the number determines no spec: another one resumes as well
