"""Costs of a student and of a teacher, measured on held-out images."""

from distill.stages.context import Run
from distill.stages.evaluation import held_out
from distill.stages.measuring import TIMED_IMAGES, student_cost, teacher_cost
from students.runtime import Scorer
from teachers.registry import build_teacher
from tests.helpers.own_teacher import build


def test_the_cost_of_a_student_is_that_of_its_file(tiny_run: Run):
    steps: list[tuple[int, int]] = []
    contract = Scorer(tiny_run.model).contract
    cost, where = student_cost(tiny_run.model, contract, held_out(tiny_run), lambda *at: steps.append(at))
    assert (cost.parameters, cost.macs) == (contract.parameters, contract.macs)
    assert cost.file_bytes == tiny_run.model.stat().st_size
    assert cost.latency_ms_median is not None
    assert cost.latency_ms_p95 is not None
    assert 0 < cost.latency_ms_median <= cost.latency_ms_p95
    assert cost.peak_memory_mb is not None
    assert cost.peak_memory_mb > 20
    assert "from JPEG to score" in where
    assert steps[-1][0] == steps[-1][1]


def test_a_teacher_is_timed_without_the_image_that_warms_it_up(tiny_run: Run):
    out = held_out(tiny_run)
    steps: list[tuple[int, int]] = []
    cost, where = teacher_cost(build_teacher("reference"), out, out.ids, progress=lambda *at: steps.append(at))
    timed = min(len(out.ids), TIMED_IMAGES + 1)
    assert steps[-1] == (timed, timed)
    assert where.endswith("without decoding")
    assert f"{timed - 1} image" in where
    assert cost.latency_ms_median is not None


def test_a_teacher_without_a_network_has_no_parameters(tiny_run: Run):
    out = held_out(tiny_run)
    cost, _ = teacher_cost(build(), out, out.ids[:1])
    assert (cost.parameters, cost.trained, cost.file_bytes) == (None, None, None)


def test_a_teacher_that_can_score_nothing_has_no_time(tiny_run: Run):
    cost, where = teacher_cost(build(), held_out(tiny_run), [])
    assert cost.latency_ms_median is None
    assert "no image" in where
