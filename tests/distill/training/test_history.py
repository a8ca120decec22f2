"""The history of a run: cut back to a checkpoint, and means that survive one."""

import json
from pathlib import Path

import pytest

from distill.training.history import History, Mean, append_line, read_history
from pseudo_labels.errors import IntegrityError


def test_what_a_checkpoint_does_not_know_is_dropped(tmp_path: Path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    history.append({"step": 1})
    known = history.length
    history.append({"step": 2})
    history.commit()
    assert [one["step"] for one in read_history(path)] == [1, 2]
    resumed = History(path, known)
    assert resumed.length == known
    resumed.append({"step": 2, "again": True})
    assert read_history(path) == [{"step": 1}, {"again": True, "step": 2}]


def test_a_history_that_lost_lines_is_refused(tmp_path: Path):
    path = tmp_path / "history.jsonl"
    append_line(path, {"step": 1})
    with pytest.raises(IntegrityError, match=r"has 92 bytes, but the checkpoint has 99"):
        History(path, 99)


def test_a_number_that_json_has_no_name_for_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        append_line(tmp_path / "history.jsonl", {"loss": float("nan")})
    assert read_history(tmp_path / "nothing.jsonl") == []


def test_means_go_on_after_a_checkpoint_to_the_last_bit():
    values = [0.1, 0.2, 0.7, 1e-9]
    unbroken = Mean()
    for value in values:
        unbroken.add({"loss": value, "srcc": -value})
    first = Mean()
    for value in values[:2]:
        first.add({"loss": value, "srcc": -value})
    second = Mean(json.loads(json.dumps(first.state())))
    for value in values[2:]:
        second.add({"loss": value, "srcc": -value})
    means = second.take()
    assert means == unbroken.take()
    assert means["loss"] == pytest.approx(sum(values) / 4)
    assert second.take() == {}
