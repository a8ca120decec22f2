import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa import DpIqaTeacher, build_dp_iqa, load_bank, prompt_bank
from teachers.dp_iqa.prompts import save_bank, stand_in_bank
from teachers.dp_iqa.variants import VARIANTS, build_unet
from teachers.registry import build_teacher
from tests.teachers.dp_iqa.official import published


def build(folder: Path, cache: Path, **options: Any) -> DpIqaTeacher:
    return build_dp_iqa(**{"variant": "tiny", "weights": folder, "head": "new", "prompt_cache": cache, **options})


def test_weights_and_prompts_come_from_the_folder(sd_folder: Path, prompt_cache: Path):
    model = build(sd_folder, prompt_cache).model
    unet = load_file(sd_folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(model.unet.conv_in.weight, unet["conv_in.weight"])
    vae = load_file(sd_folder / "vae" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(model.vae.state_dict()["quant_conv.weight"], vae["quant_conv.weight"])
    assert model.prompts is not None
    assert torch.equal(model.prompts, prompt_bank(sd_folder, prompt_cache).features)


def test_the_stamp_does_not_depend_on_where_equal_prompts_come_from(
    sd_folder: Path, prompt_cache: Path, tmp_path: Path
):
    bank = tmp_path / "bank.safetensors"
    save_bank(bank, prompt_bank(sd_folder, prompt_cache))
    expected = build(sd_folder, prompt_cache).stamp
    assert build(sd_folder, prompt_cache, clip=sd_folder).stamp == expected
    assert build(sd_folder, prompt_cache, prompts=bank).stamp == expected


def test_equal_arguments_give_equal_weights_and_the_callers_randomness_is_left_alone(
    sd_folder: Path, prompt_cache: Path
):
    torch.manual_seed(1)
    first = build(sd_folder, prompt_cache)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    assert build(sd_folder, prompt_cache).stamp == first.stamp != build(sd_folder, prompt_cache, seed=1).stamp


def test_a_wider_context_is_reached_by_the_text_adapter(sd_folder: Path, prompt_cache: Path, tmp_path: Path):
    """As Stable Diffusion 2.1: 1024 channels of context, text features of 768, another number of heads per block."""
    folder = tmp_path / "sd21"
    shutil.copytree(sd_folder, folder)
    shutil.rmtree(folder / "unet")
    wide = {**VARIANTS["tiny"].unet, "cross_attention_dim": 48, "attention_head_dim": [2, 4, 8, 8]}
    build_unet({**wide, "use_linear_projection": True}).save_pretrained(folder / "unet")
    teacher = build(folder, prompt_cache)
    assert teacher.model.text_adapter.widen.state_dict()["weight"].shape == (48, 32)
    output = teacher([torch.rand(3, 64, 64)])
    assert output.score.isfinite().all()
    assert "text_adapter.widen.weight" in teacher.trained_state()


def test_the_official_checkpoint_is_a_teacher(tmp_path: Path):
    torch.manual_seed(14)
    torch.save(published("tiny"), tmp_path / "teacher.pth")
    save_bank(tmp_path / "bank", stand_in_bank(32, seed=2))
    teacher = build_dp_iqa(variant="tiny", official=tmp_path / "teacher.pth", prompts=tmp_path / "bank")
    assert "NC-SA" in teacher.stamp.licence
    assert teacher.stamp.scale.startswith("MOS / 100")
    assert torch.equal(teacher.model.prompts, load_bank(tmp_path / "bank").features)  # type: ignore[arg-type]
    assert teacher([torch.rand(3, 64, 64)]).score.isfinite().all()
    teacher.trained_state()["decoder.tail.4.bias"].add_(0.5)  # fitted further
    teacher.save_trained(tmp_path / "head", scale="MOS of another set", licence="none")
    further = build_dp_iqa(
        variant="tiny", official=tmp_path / "teacher.pth", prompts=tmp_path / "bank", head=tmp_path / "head"
    )
    assert further.stamp.weights == teacher.stamp.weights
    assert further.stamp.scale == "MOS of another set"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "tiny"}, "has no head: give head=FILE"),  # and the others of test_sources.py
        ({"variant": "tiny", "pretrained": False, "precision": "fp16"}, "precision 'fp16': choose fp32, bf16"),
        (
            {"variant": "tiny", "pretrained": False, "head": "nowhere"},
            "no fitted teacher at nowhere: .*`pocketiqa fit-teacher`",
        ),
        ({"variant": "tiny", "pretrained": False, "attention_slicing": "some"}, "attention_slicing is 'some'"),
        ({"variant": "tiny", "pretrained": False, "trainable": "some"}, "trainable is 'some'"),
        ({"variant": "tiny", "pretrained": False, "input_side_px": "64"}, "input_side_px is '64', but a whole number"),
        ({"variant": "tiny", "pretrained": False, "input_side_px": 100}, "input_side_px is 100, but a multiple of 64"),
    ],
)
def test_contradictions_and_unknown_choices_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(PocketiqaError, match=message) as caught:
        build_dp_iqa(**options)
    assert "\n" not in str(caught.value)


def test_settings_reach_the_model():
    teacher = build_dp_iqa(
        variant="tiny", pretrained=False, precision="bf16", channels_last=True, checkpoint_blocks=True, timestep=3
    )
    model = teacher.model
    assert model.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.unet.is_gradient_checkpointing
    assert model.conditioning.timestep == 3
    assert model.decoder.tail[0].state_dict()["weight"].dtype == torch.float32
    json.dumps(teacher.stamp.as_dict())


def test_the_registry_takes_it_by_its_address():
    options: dict[str, Any] = {"variant": "tiny", "pretrained": False}
    assert build_teacher("teachers.dp_iqa:build_dp_iqa", **options).stamp == build_dp_iqa(**options).stamp
    with pytest.raises(PocketiqaError, match=r"unexpected keyword argument 'timesteps'; its options are: variant, "):
        build_teacher("teachers.dp_iqa:build_dp_iqa", timesteps=1)
