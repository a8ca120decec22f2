"""What the stages of a study's run cost, and that the record outlives a second start."""

import subprocess
import sys
from pathlib import Path

import pytest

from distill.study.run import COSTS, read_costs, record_cost
from pseudo_labels.errors import IntegrityError
from tests.helpers.records import alter


def test_costs_of_stages_stand_side_by_side(tmp_path: Path):
    assert read_costs(tmp_path) == {}
    record_cost(tmp_path, "label", 2.5, resumed=False)
    record_cost(tmp_path, "distill", 12.5, resumed=True)
    costs = read_costs(tmp_path)
    assert (costs["label"]["seconds"], costs["label"]["resumed"]) == (2.5, False)
    assert (costs["distill"]["seconds"], costs["distill"]["resumed"]) == (12.5, True)
    assert costs["distill"]["peak_memory_bytes"] >= costs["label"]["peak_memory_bytes"] > 10e6
    record_cost(tmp_path, "label", 3.0, resumed=False)
    assert read_costs(tmp_path)["label"]["seconds"] == 3.0


def test_an_altered_record_is_refused(tmp_path: Path):
    record_cost(tmp_path, "label", 2.5, resumed=False)
    alter(tmp_path / COSTS, label={"seconds": 1.0})
    with pytest.raises(IntegrityError, match="was altered"):
        read_costs(tmp_path)


def test_peak_memory_keeps_what_was_used_and_freed():
    # In a process of its own: this one may have used gigabytes, and as much again would have to be filled.
    code = (
        "import numpy as np; from distill.study.run import peak_memory_bytes; before = peak_memory_bytes();"
        "used = np.ones(before // 8 + (64 << 20) // 8); del used; print(before, peak_memory_bytes())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, after = map(int, printed.split())
    assert after >= before + (60 << 20)
