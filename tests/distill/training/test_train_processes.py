"""Two processes on the CPU (torchrun, gloo) against one process with the same global batch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from distill.training.history import read_history
from tests.helpers.processes import run_in_two
from tests.helpers.training import texture_pool, texture_store, train_folder

# The default: without a GPU too, several processes must find each other.
DEVICE = "cpu" if torch.accelerator.is_available() else "auto"
# Every loss that compares images, with batch normalisation over the whole batch.
CROPS = {"losses": {"plcc": 0.5, "ranking": 1.0}, "log_every_steps": 1, "device": DEVICE}
# Feature losses, rows of different confidence, gradient accumulation.
FEATURES = {
    "losses": {"plcc": 0.5, "feature": 1.0, "relational": 1.0, "feature_name": "map"},
    "images": {"crop_size": None, "horizontal_flip": False},
    "accumulation_steps": 2,
    "log_every_steps": 1,
}
RUNS = {"crops": CROPS, "features": FEATURES}


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One launch for all runs of two processes, beside the same runs of one; the folder and what was printed."""
    folder = tmp_path_factory.mktemp("processes")
    pool = texture_pool(folder, scenes=6)
    features = {"map": np.random.default_rng(0).normal(size=(len(pool), 5, 3, 3)).astype(np.float32)}
    changes = {row: {"confidence": 0.25} for row in range(0, len(pool), 3)}
    texture_store(folder / "labels", pool, features=features, changes=changes)
    data = str(folder)
    jobs: list[list[Any]] = [[data, str(folder / "odd"), {"batch_size": 5}]]
    jobs += [[data, str(folder / f"two-{name}"), changes] for name, changes in RUNS.items()]
    jobs += [[data, str(folder / "free"), {**CROPS, "threads": None, "steps": 3}]]
    jobs += [[data, str(folder / "stopped"), CROPS, 3], [data, str(folder / "stopped"), CROPS]]
    printed = run_in_two("tests.helpers.training", jobs)
    for name, changes in RUNS.items():
        train_folder(data, str(folder / f"one-{name}"), changes)
    return folder, printed


@pytest.fixture
def folder(launch: tuple[Path, str]) -> Path:
    return launch[0]


@pytest.mark.parametrize("name", RUNS)
def test_every_loss_of_every_step_agrees(folder: Path, name: str):
    one, two = (read_history(folder / f"{count}-{name}" / "history.jsonl") for count in ("one", "two"))
    assert len(one) == len(two) == 8
    for mine, theirs in zip(one, two, strict=True):
        if mine["kind"] == "validation":
            # Ranks of a student that hardly knows anything jump; its error does not.
            mine, theirs = mine["sources"]["textures"], theirs["sources"]["textures"]
            mine, theirs = {"rmse": mine["rmse"]}, {"rmse": theirs["rmse"]}
        for key in set(mine) - {"kind"}:
            # Adam divides by the gradient's size, so rounding grows with every step; measured at worst 8e-4.
            print(key, mine[key], theirs[key], abs(mine[key] / theirs[key] - 1))
            assert theirs[key] == pytest.approx(mine[key], rel=5e-3, abs=1e-6), (mine.get("step"), key)
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)  # before rounding has grown
    assert two[0]["gradient_norm"] == pytest.approx(one[0]["gradient_norm"], rel=1e-4)


@pytest.mark.parametrize("name", RUNS)
def test_the_final_weights_agree_and_have_the_same_names(folder: Path, name: str):
    one, two = (load_file(folder / f"{count}-{name}" / "student" / "student.safetensors") for count in ("one", "two"))
    assert list(one) == list(two)
    for key, value in one.items():
        # 6 steps of at most 0.003 move a weight by up to 0.018; measured at worst 3e-4.
        torch.testing.assert_close(two[key].double(), value.double(), rtol=1e-3, atol=1e-3, msg=key)


def test_the_folder_of_two_processes_is_finished_once(folder: Path):
    records = read_history(folder / "two-crops" / "history.jsonl")
    assert [record["step"] for record in records if record["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert json.loads((folder / "two-crops" / "manifest.json").read_text())["complete"]


def test_a_signal_to_one_process_stops_both_and_they_go_on_to_the_same_bytes(launch: tuple[Path, str]):
    folder, printed = launch
    assert printed.count("refused: stopped by SIGTERM at step 3 of 6") == 1
    assert printed.count("refused: stopped by a signal at step 3 of 6") == 1
    for name in ("student/student.safetensors", "history.jsonl", "split.json"):
        assert (folder / "stopped" / name).read_bytes() == (folder / "two-crops" / name).read_bytes()


def test_a_batch_that_two_processes_cannot_share_is_refused_by_both(launch: tuple[Path, str]):
    assert launch[1].count("batch_size 5 cannot be divided equally among 2 processes") == 2


def test_processes_agree_on_threads_that_nobody_named(folder: Path):
    """The main process decides and the others hear of it: none waits in vain."""
    manifest = json.loads((folder / "free" / "manifest.json").read_text())
    assert manifest["complete"]
    # Of two cores each process has one: nothing was measured, and nothing is noted.
    assert manifest["notes"].get("threads", 1) >= 1
