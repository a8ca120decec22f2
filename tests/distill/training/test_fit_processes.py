"""Two processes on the CPU (torchrun, gloo) fit a teacher like one process with the same global batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distill.training.history import read_history
from tests.helpers.fit_runs import STATEFUL, fit_folder
from tests.helpers.processes import run_in_two
from tests.helpers.training import texture_pool

# The default: without a GPU too, several processes must find each other.
DEVICE = "cpu" if torch.accelerator.is_available() else "auto"
# Losses that compare images over all processes, and a term of the teacher's own that each process has of its share.
LOSSES = {
    "losses": {"plcc": 0.5, "ranking": 1.0}, "options": {"extra": 0.5}, "log_every_steps": 1,
    "checkpoint_every_steps": 1, "steps": 2, "optimizer__warmup_steps": 1, "device": DEVICE,
}  # fmt: skip
# State that each process would have of its own: memory, statistics of a norm.
ACCUMULATED = {**STATEFUL, "accumulation_steps": 2}


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One launch for all fittings of two processes, beside one of one; the folder and what was printed."""
    folder = tmp_path_factory.mktemp("processes")
    texture_pool(folder, scenes=6)
    data = str(folder)
    jobs: list[list[Any]] = [[data, str(folder / "two"), LOSSES], [data, str(folder / "unbroken"), ACCUMULATED]]
    jobs += [[data, str(folder / "stopped"), ACCUMULATED, 3], [data, str(folder / "stopped"), ACCUMULATED]]
    printed = run_in_two("tests.helpers.fit_runs", jobs)
    fit_folder(data, str(folder / "one"), LOSSES)
    return folder, printed


def test_the_first_step_agrees_with_that_of_one_process(launch: tuple[Path, str]):
    folder, _ = launch
    one, two = (read_history(folder / name / "history.jsonl")[0] for name in ("one", "two"))
    assert one.keys() >= {"loss", "score", "plcc", "ranking", "apart", "gradient_norm"}
    for name in one.keys() - {"kind"}:
        assert two[name] == pytest.approx(one[name], rel=1e-5), name
    path = Path("checkpoints") / "step-00000001" / "optimizer.safetensors"
    gradients = [load_file(folder / name / path) for name in ("one", "two")]
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_a_signal_to_one_process_stops_both_and_they_go_on_to_the_same_bytes(launch: tuple[Path, str]):
    folder, printed = launch
    assert printed.count("refused: stopped by") == 2
    for name in ("teacher/fitted.safetensors", "teacher/teacher.json", "history.jsonl", "split.json"):
        assert (folder / "stopped" / name).read_bytes() == (folder / "unbroken" / name).read_bytes()
    last = [load_file(path) for path in sorted((folder / "unbroken" / "checkpoints").glob("*/beside.safetensors"))]
    assert last[-1]["memory"].any()
