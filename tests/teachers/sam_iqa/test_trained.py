from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pseudo_labels.errors import PocketiqaError, TamperedError
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
def test_a_saved_teacher_comes_back_the_same(
    trainable: str, checkpoint: Path, tmp_path: Path, pictures: list[np.ndarray]
):
    path = tmp_path / "fitted.safetensors"
    options: dict[str, Any] = {"trainable": trainable, "input_side_px": 64}
    first = fitted(checkpoint, path, **options)
    second = new(checkpoint, head=path, seed=7, **options)
    items = [first.preprocess(picture, None) for picture in pictures]
    assert torch.equal(first(items).score, second(items).score)
    assert second.stamp.weights == first.stamp.weights
    assert second.stamp.scale == SCALE["scale"]
    held = set(load_file(path))
    assert ("encoder.vit.neck.0.weight" in held) == (trainable != "head")
    assert ("encoder.vit.blocks.0.norm1.weight" in held) == (trainable == "all")
    second.save_trained(tmp_path / "again.safetensors", **SCALE)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


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


def test_damage_is_seen(checkpoint: Path, tmp_path: Path):
    path = tmp_path / "head.safetensors"
    fitted(checkpoint, path)
    whole = path.read_bytes()
    for bad in (whole[:-1], whole[:100], b"", whole[:-50] + bytes([whole[-50] ^ 1]) + whole[-49:]):
        path.write_bytes(bad)
        with pytest.raises(TamperedError, match=r"is not a whole safetensors file|was altered"):
            new(checkpoint, head=path)
    path.write_bytes(whole.replace(b'\\"scale\\"', b'\\"whale\\"'))
    with pytest.raises(TamperedError, match="entry lacks 'scale'"):
        new(checkpoint, head=path)
    path.write_bytes(whole.replace(b'\\"sam_iqa\\"', b'\\"sam_qia\\"'))
    with pytest.raises(PocketiqaError, match="was fitted for 'sam_qia', not 'sam_iqa'"):
        new(checkpoint, head=path)


def test_other_files_are_no_heads(checkpoint: Path, tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"no fitted teacher at .*nowhere"):
        new(checkpoint, head=tmp_path / "nowhere")
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(PocketiqaError, match="holds no fitted teacher"):
        new(checkpoint, head=path)
    save_file({"x": torch.zeros(1)}, path, {"pocketiqa.trained": '{"format": 2}'})
    with pytest.raises(PocketiqaError, match="format version 2, but this pocketiqa reads 1"):
        new(checkpoint, head=path)
