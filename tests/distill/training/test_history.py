"""The history of a run: cut back to a checkpoint, and means that survive one."""

import json
from pathlib import Path

import pytest

from distill.training.history import Clock, History, Mean, append_line, read_history
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


class _Machine:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.clock = Clock(lambda: self.now_s)

    def step(self, seconds: float, waited: float = 0.0) -> str:
        """One step, of which so many seconds were spent on getting its batch."""

        def batches():
            self.now_s += waited
            yield None

        with self.clock.step():
            next(self.clock.waiting(batches()))
            self.now_s += seconds - waited
        return self.clock.slow_step()


def test_a_step_ten_times_slower_than_the_first_ones_says_so_with_the_remedy():
    machine = _Machine()
    assert [machine.step(seconds) for seconds in (9.0, 0.4, 0.5, 0.6, 0.5, 0.5, 0.5, 4.9)] == [""] * 8
    said = machine.step(21.7)
    assert said.startswith("took 21.7 s, 43 times as long as the first ones (0.5 s): other programs use the processor")
    assert "Ctrl-C" in said
    assert "'threads: 1'" in said
    assert [machine.step(21.7) for _ in range(20)] == [""] * 20  # said a moment ago
    assert sum(bool(machine.step(21.7)) for _ in range(30)) == 1  # once in ten minutes


def test_a_step_that_waited_for_its_images_blames_the_disk():
    machine = _Machine()
    for _ in range(7):
        machine.step(0.2)
    assert "12 s of it waiting for images" in machine.step(13.0, waited=12.0)


def test_a_hiccup_of_fast_steps_is_nothing_to_speak_of():
    machine = _Machine()
    assert [machine.step(seconds) for seconds in [0.01] * 8 + [0.9]] == [""] * 9
    assert machine.clock.take(4)["seconds"] == pytest.approx(0.98)


def test_a_value_that_is_not_finite_spoils_no_mean_and_no_checkpoint():
    mean = Mean()
    for norm in (1.0, float("inf"), 4.0, float("nan")):
        mean.add({"loss": 0.5, "gradient_norm": norm, "other": float("inf")})
    resumed = Mean(json.loads(json.dumps(mean.state(), allow_nan=False)))
    resumed.add({"loss": 0.5, "gradient_norm": 4.0, "other": float("inf")})
    assert resumed.take() == {"loss": 0.5, "gradient_norm": 3.0}
    assert resumed.take() == {}
