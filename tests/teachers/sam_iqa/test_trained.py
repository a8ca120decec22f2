"""Fitted files of a teacher on a SAM checkpoint; tests for all teachers are in ``tests/teachers/test_fitting.py``."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pseudo_labels.errors import PocketiqaError
from teachers.sam_iqa import SamIqaTeacher, build_sam_iqa
from tests.teachers.sam_iqa.tiny_sam import save_sam

SCALE = {"scale": "MOS of a test / 100", "licence": "none"}


def new(checkpoint: Path, **options: Any) -> SamIqaTeacher:
    chosen: dict[str, Any] = {"head": "new"} | options
    return build_sam_iqa(variant="tiny", weights=checkpoint, **chosen)


def fitted(checkpoint: Path, path: Path, **options: Any) -> SamIqaTeacher:
    """A teacher whose trainable weights were moved, and saved."""
    teacher = new(checkpoint, **options)
    generator = torch.Generator().manual_seed(0)
    for value in teacher.trained_state().values():
        value += 0.05 * torch.randn(value.shape, generator=generator)
    teacher.save_trained(path, **SCALE)
    return teacher


@pytest.mark.parametrize("trainable", ["head", "neck", "all"])
def test_the_file_holds_only_what_was_trained(trainable: str, checkpoint: Path, tmp_path: Path):
    path = tmp_path / "fitted.safetensors"
    fitted(checkpoint, path, trainable=trainable)
    held = set(load_file(path))
    assert "branches.frequency.2.mix.0.weight" in held
    assert ("encoder.vit.neck.0.weight" in held) == (trainable != "head")
    assert ("encoder.vit.blocks.0.norm1.weight" in held) == (trainable == "all")


def test_a_fitted_encoder_needs_no_checkpoint(checkpoint: Path, tmp_path: Path):
    path = tmp_path / "fitted.safetensors"
    first = fitted(checkpoint, path, trainable="all")
    second = build_sam_iqa(variant="tiny", pretrained=False, trainable="all", head=path)
    assert second.stamp.weights == first.stamp.weights


def test_a_head_is_refused_on_another_base(checkpoint: Path, tmp_path: Path):
    path = tmp_path / "head.safetensors"
    fitted(checkpoint, path)
    with pytest.raises(PocketiqaError, match=r"fitted on the frozen base \w{12}\.\.\., this one is \w{12}\.\.\.: give"):
        new(save_sam(tmp_path / "other.pth", seed=1), head=path)


def test_a_head_may_run_in_bfloat16_but_not_be_fitted_in_it(checkpoint: Path, tmp_path: Path):
    path = tmp_path / "head.safetensors"
    fitted(checkpoint, path, trainable="neck")
    half = new(checkpoint, head=path, trainable="neck", precision="bf16")
    with pytest.raises(PocketiqaError, match=r"encoder.vit.neck.0.weight is torch.bfloat16: fit with precision='fp32'"):
        half.save_trained(tmp_path / "half.safetensors", **SCALE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "fr"}, "form: 'nr' -> 'fr'"),
        ({"input_side_px": 64}, "input_side_px: 128 -> 64"),
        ({"trainable": "neck"}, "trainable: 'head' -> 'neck'"),
    ],
)
def test_other_options_are_refused(options: dict[str, Any], message: str, checkpoint: Path, tmp_path: Path):
    path = tmp_path / "head.safetensors"
    fitted(checkpoint, path)
    with pytest.raises(PocketiqaError, match=rf"fitted with other options \({message}\)"):
        new(checkpoint, head=path, **options)
