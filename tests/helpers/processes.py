"""Jobs of a test module in two processes on the CPU, as ``torchrun`` starts them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run_in_two(module: str, jobs: Sequence[Sequence[Any]]) -> str:
    """Give ``module`` the jobs as JSON in two processes that know of each other; returns what they print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "-m", module, json.dumps(jobs)], cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
