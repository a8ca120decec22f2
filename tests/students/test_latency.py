import os
from pathlib import Path

import pytest

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError
from students.latency import STEPS, machine_name, measure_latency, pinned_cores


def test_report_covers_every_step(tiny_onnx: Path, photo_files: list[Path]) -> None:
    seen: list[tuple[int, int]] = []
    report = measure_latency(tiny_onnx, photo_files, warmup_images=2, repeats=4, progress=lambda *now: seen.append(now))
    assert tuple(report.steps) == STEPS
    assert all(0 < step.median_ms <= step.p95_ms for step in report.steps.values())
    parts = sum(report.steps[name].median_ms for name in STEPS[:3])
    assert report.steps["total"].p95_ms >= max(report.steps[name].median_ms for name in STEPS[:3])
    assert parts > 0
    assert (report.images, report.repeats, report.threads) == (3, 4, 1)
    assert seen == [(done, 14) for done in range(1, 15)]
    assert report.as_dict()["steps"]["total"]["median_ms"] == report.steps["total"].median_ms


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system cannot pin cores")
def test_cores_are_pinned_while_it_measures_and_freed_after() -> None:
    before = os.sched_getaffinity(0)
    with pinned_cores(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before
    too_many = pytest.raises(PocketiqaError, match=f"threads is 200, but this process may use {len(before)} cores")
    with too_many, pinned_cores(200):
        pass


def test_unfit_arguments_are_named(tiny_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(PocketiqaError, match="no images to time"):
        measure_latency(tiny_onnx, [])
    with pytest.raises(PocketiqaError, match="repeats is 0"):
        measure_latency(tiny_onnx, [tmp_path], repeats=0)
    with pytest.raises(ImageError, match="no such file"):
        measure_latency(tiny_onnx, [tmp_path / "nowhere.jpg"])


def test_machine_is_named() -> None:
    assert os.uname().machine in machine_name()
