import subprocess
import sys
from pathlib import Path

import pytest

from pseudo_labels.errors import PocketiqaError
from teachers.launch import current_launch


def test_alone_it_is_the_main_process_and_waits_for_nobody():
    launch = current_launch("cpu")
    assert (launch.rank, launch.world, str(launch.device), launch.is_main) == (0, 1, "cpu", True)
    launch.wait_for_all()


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta-data"])
def test_a_device_that_is_not_there_is_refused_by_name(device: str):
    with pytest.raises(PocketiqaError, match=f"device '{device}' cannot be used here: choose auto, cpu"):
        current_launch(device)


def test_a_process_leaves_its_group_when_it_ends(tmp_path: Path):
    program = f"""
import atexit
import torch.distributed as group
from teachers.launch import leave_group_at_exit
atexit.register(lambda: print("still in a group:", group.is_initialized()))  # first in, last out
group.init_process_group("gloo", init_method="file://{tmp_path / "rendezvous"}", rank=0, world_size=1)
leave_group_at_exit()
leave_group_at_exit()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "still in a group: False\n"), done.stderr
