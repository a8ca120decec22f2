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
