from pathlib import Path

import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa.trained import Trained, check_fits, read_trained, save_trained

CONFIG = {"variant": "tiny", "timestep": 1}
TENSORS = {"decoder.a": torch.arange(4.0), "decoder.b": torch.ones(2, 2)}
TRAINED = Trained(CONFIG, "0123456789abcdef", TENSORS, "MOS of BIQ2021", "research")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "head.safetensors"
    save_trained(path, TRAINED)
    return path


def test_what_was_written_is_read(path: Path):
    found = read_trained(path)
    assert (found.config, found.base, found.scale, found.licence) == (
        TRAINED.config,
        TRAINED.base,
        TRAINED.scale,
        TRAINED.licence,
    )
    assert all(torch.equal(found.tensors[name], TENSORS[name]) for name in TENSORS)
    data = path.read_bytes()
    save_trained(path, TRAINED)
    assert path.read_bytes() == data


def test_lower_precision_is_not_written(tmp_path: Path):
    low = Trained(CONFIG, "base", {"a": torch.ones(2, dtype=torch.bfloat16)}, "", "")
    with pytest.raises(PocketiqaError, match=r"a is torch.bfloat16: fit with precision='fp32'"):
        save_trained(tmp_path / "low.safetensors", low)
    assert not list(tmp_path.iterdir())


def test_what_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"no fitted DP-IQA head at .*nowhere: give a file that .*save_trained"):
        read_trained(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("config", "base", "own", "said"),
    [
        ({**CONFIG, "timestep": 2}, TRAINED.base, TENSORS, r"other options \(timestep: 1 -> 2\)"),
        (CONFIG, "fedcba9876543210", TENSORS, r"frozen base 0123456789ab\.\.\., this one is fedcba987654\.\.\."),
        (CONFIG, TRAINED.base, {"decoder.a": torch.ones(4)}, r"has the foreign decoder\.b;"),
        (CONFIG, TRAINED.base, {**TENSORS, "decoder.c": torch.ones(1)}, r"it lacks decoder\.c;"),
    ],
)
def test_a_part_of_another_model_is_refused(path: Path, config: dict, base: str, own: dict, said: str):
    trained = read_trained(path)
    check_fits(trained, CONFIG, TRAINED.base, TENSORS, path)
    with pytest.raises(PocketiqaError, match=said):
        check_fits(trained, config, base, own, path)
