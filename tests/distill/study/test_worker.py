"""A run in a process of its own: what becomes of failures."""

import os
from pathlib import Path

import pytest

from distill.study.worker import FAILURE, RunOrder, read_failure, run_apart


def order_of(folder: Path, **sections: object) -> RunOrder:
    recipe = {"name": "one", "out": str(folder / "run"), **sections}
    return RunOrder(recipe, str(folder / "shared"), "pocketiqa study x --only one", False)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_a_failure_is_one_line_and_its_traceback_stays_in_the_folder(tmp_path: Path):
    student = {"student": {"name": "pocket-s"}, "steps": 4, "optimizer": {"warmup_steps": 1}}
    order = order_of(tmp_path, distill=student, sources=[{"ratings": "csv:gone.csv"}])
    reason = run_apart(order)
    assert "gone.csv" in reason
    assert "\n" not in reason
    assert "Traceback" in (order.folder / FAILURE).read_text()
    assert read_failure(order.folder) == reason


def test_a_run_that_did_not_fail_has_no_reason(tmp_path: Path):
    assert read_failure(tmp_path) == ""


def test_the_order_knows_its_folder(tmp_path: Path):
    assert order_of(tmp_path).folder == tmp_path / "run"
    assert os.environ["OMP_NUM_THREADS"] == "1"
