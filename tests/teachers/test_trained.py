import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pseudo_labels.errors import PocketiqaError, TamperedError
from teachers.trained import Trained, check_fits, read_trained, save_trained

ENTRY = "pocketiqa.fitted_teacher"
TENSORS = {"head.a": torch.arange(4.0), "head.b": torch.ones(2, 2), "norm.batches": torch.tensor(7)}
TRAINED = Trained(
    teacher="some",
    config={"variant": "tiny", "taps": [1, 2]},
    base="0123456789abcdef",
    tensors=TENSORS,
    scale="MOS of BIQ2021",
    licence="research",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "head.safetensors"
    save_trained(path, TRAINED)
    return path


def test_what_was_written_is_read_and_equal_parts_give_equal_bytes(path: Path):
    found = read_trained(path)
    assert replace(found, tensors={}) == replace(TRAINED, tensors={})
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[name], TENSORS[name]) for name in TENSORS)
    data = path.read_bytes()
    save_trained(path, replace(found, tensors=dict(reversed(found.tensors.items()))))
    assert path.read_bytes() == data


def test_lower_precision_is_not_written(tmp_path: Path):
    low = replace(TRAINED, tensors={"a": torch.ones(2, dtype=torch.bfloat16)})
    with pytest.raises(PocketiqaError, match=r"a is torch.bfloat16: fit with precision='fp32'"):
        save_trained(tmp_path / "low.safetensors", low)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_cut_off_is_refused(path: Path, share: float):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(
        TamperedError, match=r"head.safetensors is cut off .*: give a file that .*fit-teacher"
    ) as caught:
        read_trained(path)
    assert "\n" not in str(caught.value)


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
    """Change record and tensors, and leave the digest as it is."""
    with safe_open(path, "pt") as file:
        record = json.loads(file.metadata()[ENTRY])
    tensors = dict(TENSORS)
    change(record, tensors)
    save_file(tensors, path, {ENTRY: json.dumps(record)})


ALTERED: dict[str, Callable[[dict[str, Any], dict[str, torch.Tensor]], None]] = {
    "scale": lambda record, _: record["head"].update(scale="another"),
    "licence": lambda record, _: record["head"].pop("licence"),
    "option": lambda record, _: record["head"]["config"].update(variant="large"),
    "base": lambda record, _: record["head"].update(base="f" * 64),
    "teacher": lambda record, _: record["head"].update(teacher="other"),
    "value": lambda _, tensors: tensors.update({"head.b": torch.ones(2, 2) + 1e-6}),
    "name": lambda _, tensors: tensors.update({"head.c": tensors.pop("head.b")}),
    "dropped": lambda _, tensors: tensors.__delitem__("head.b"),
}


@pytest.mark.parametrize("what", ALTERED)
def test_an_altered_head_or_tensor_is_tampering(path: Path, what: str):
    rewrite(path, lambda record, tensors: None)
    assert read_trained(path).scale == TRAINED.scale  # rewriting alone is no change
    rewrite(path, ALTERED[what])
    with pytest.raises(TamperedError, match=r"head.safetensors was altered, .*: give a file that .*fit-teacher"):
        read_trained(path)


def test_what_is_no_fitted_teacher_is_told_apart(path: Path, tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"no fitted teacher at .*nowhere: give a file that `pocketiqa fit-teach"):
        read_trained(tmp_path / "nowhere")
    with pytest.raises(PocketiqaError, match=r"no fitted teacher at "):
        read_trained(tmp_path)
    rewrite(path, lambda record, _: record.update(format=9))
    with pytest.raises(PocketiqaError, match="has format 9, but this pocketiqa reads 1: upgrade pocketiqa"):
        read_trained(path)
    save_file(TENSORS, path)
    with pytest.raises(PocketiqaError, match=r"head.safetensors is no fitted teacher: give a file"):
        read_trained(path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"teacher": "other"}, "was fitted for 'some', not 'other': give a file of that"),
        (
            {"config": {"variant": "large", "taps": (1, 2)}},
            r"other options \(variant: 'tiny' -> 'large'\): build some as it was",
        ),
        (
            {"base": "fedcba9876543210"},
            r"frozen base 0123456789ab\.\.\., this one is fedcba987654\.\.\.: give the weigh",
        ),
        ({"tensors": {"head.a": torch.ones(4)}}, r"\(it has the foreign head.b, norm.batches\): fit it again"),
        ({"tensors": {**TENSORS, "head.c": torch.ones(1)}}, r"does not fit this version of some \(it lacks head.c\)"),
        ({"tensors": {**TENSORS, "head.b": torch.ones(4)}}, r"it has head.b of shape \[2, 2\] instead of \[4\]"),
    ],
)
def test_a_part_of_another_model_is_refused(path: Path, changed: dict[str, Any], said: str):
    trained = read_trained(path)
    check_fits(trained, TRAINED, path)
    check_fits(trained, replace(TRAINED, config={"variant": "tiny", "taps": (1, 2)}), path)  # as JSON, the same
    with pytest.raises(PocketiqaError, match=said) as caught:
        check_fits(trained, replace(TRAINED, **changed), path)
    assert "\n" not in str(caught.value)
