import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa.base_weights import load_base, refuse_other_families
from teachers.dp_iqa.variants import VARIANTS, build_unet

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(sd_folder: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    copied = tmp_path / "sd"
    shutil.copytree(sd_folder, copied)
    return copied


def equal(module: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> bool:
    state = module.state_dict()
    return set(state) == set(tensors) and all(torch.equal(state[name], tensors[name]) for name in state)


def test_both_parts_get_the_tensors_of_the_folder(folder: Path):
    unet, vae = load_base(folder)
    assert equal(unet, load_file(folder / UNET))
    assert equal(vae, load_file(folder / VAE))
    assert not any(value.is_meta for part in (unet, vae) for value in (*part.parameters(), *part.buffers()))


def test_names_of_attention_from_before_diffusers_0_19_are_understood(folder: Path):
    tensors = load_file(folder / VAE)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in tensors.items():
        for today, before in old.items():
            name = name.replace(f"attentions.0.{today}.", f"attentions.0.{before}.")
        renamed[name] = tensor
    assert len(set(renamed) - set(tensors)) == 16  # encoder and decoder, four layers, weight and bias
    save_file(renamed, folder / VAE)
    _, vae = load_base(folder)
    assert equal(vae, tensors)


def test_half_precision_and_torch_files_are_read(folder: Path):
    tensors = load_file(folder / UNET)
    (folder / UNET).unlink()
    save_file({name: value.half() for name, value in tensors.items()}, folder / UNET.replace("saf", "fp16.saf"))
    unet, _ = load_base(folder)
    assert equal(unet, {name: value.half().float() for name, value in tensors.items()})
    (folder / UNET.replace("saf", "fp16.saf")).unlink()
    torch.save(tensors, folder / UNET.replace("safetensors", "bin"))
    unet, _ = load_base(folder)
    assert equal(unet, tensors)


def damage(folder: Path, how: str) -> None:
    path = folder / UNET
    if how == "part":
        shutil.rmtree(folder / "unet")
    elif how == "weights":
        path.unlink()
    elif how == "config":
        (folder / "unet" / "config.json").unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "tensor":
        tensors = load_file(path)
        del tensors["conv_in.bias"]
        save_file(tensors, path)
    elif how == "foreign":
        save_file({**load_file(path), "lora.weight": torch.ones(1)}, path)
    elif how == "shape":
        save_file({**load_file(path), "conv_in.bias": torch.ones(3)}, path)
    elif how == "family":
        change(folder / "unet" / "config.json", _class_name="FluxTransformer2DModel")
    elif how == "pickle":
        path.rename(folder / UNET.replace("safetensors", "bin"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("part", r"has no unet/ \(it holds text_encoder, tokenizer, vae\): fetch unet/\* and vae/\*"),
        ("weights", r"unet has no weights \(it holds config.json\): the download is incomplete"),
        ("config", r"no configuration of the unet \(an incomplete download\?\) at"),
        ("cut", r"diffusion_pytorch_model.safetensors is cut off or damaged"),
        ("empty", r"diffusion_pytorch_model.safetensors is cut off or damaged"),
        ("tensor", r"unet does not fit the model: it lacks conv_in.bias;"),
        ("foreign", r"unet does not fit the model: it has the foreign lora.weight;"),
        ("shape", r"it has conv_in.bias of shape \[3\] instead of \[16\];"),
        ("family", r"unet holds 'FluxTransformer2DModel', but DP-IQA is built on UNet2DConditionModel"),
        ("pickle", r"diffusion_pytorch_model.bin (was refused|is no torch checkpoint)"),
    ],
)
def test_a_folder_that_will_not_do_is_refused_in_one_line(folder: Path, how: str, said: str):
    damage(folder, how)
    with pytest.raises(PocketiqaError, match=said) as caught:
        load_base(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("unet", "said"),
    [
        ({"addition_embed_type": "text_time"}, "wants more than text.*'text_time'"),
        ({"class_embed_type": "timestep"}, "wants more than text"),
        ({"cross_attention_dim": [32, 64]}, r"cross_attention_dim is \[32, 64\]"),
        ({"in_channels": 9}, "takes 9 channels, its autoencoder gives 4"),
        ({"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}, "down block DownBlock2D takes no adapter"),
    ],
)
def test_models_that_need_more_than_a_text_context_are_refused(unet: dict[str, Any], said: str):
    fine, vae = VARIANTS["tiny"].unet, VARIANTS["tiny"].vae
    refuse_other_families(fine, vae, "here")
    with pytest.raises(PocketiqaError, match=rf"here cannot carry DP-IQA: .*{said}"):
        refuse_other_families({**fine, **unet}, vae, "here")


def test_a_distilled_unet_with_fewer_blocks_and_no_middle_is_taken(folder: Path):
    torch.manual_seed(8)
    shutil.rmtree(folder / "unet")
    small = {
        **VARIANTS["tiny"].unet,
        "block_out_channels": (16, 32, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "mid_block_type": None,
    }
    build_unet(small).save_pretrained(folder / "unet")
    unet, _ = load_base(folder)
    assert unet.mid_block is None
    assert len(unet.up_blocks) == 3
