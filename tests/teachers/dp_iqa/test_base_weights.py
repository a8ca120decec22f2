import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa.base_weights import load_base, load_official, refuse_other_families
from teachers.dp_iqa.model import DpIqa
from teachers.dp_iqa.variants import VARIANTS, build_unet
from tests.teachers.dp_iqa.official import by_hand, published

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


def test_names_of_attention_from_before_diffusers_0_19_are_read(folder: Path):
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


def corrupt(folder: Path, how: str) -> None:
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
    ("how", "message"),
    [
        ("part", r"has no unet/ \(it holds text_encoder, tokenizer, vae\): fetch unet/\* and vae/\*"),
        ("weights", r"unet has no weights \(it holds config.json\): the download is incomplete"),
        ("config", r"no configuration of the unet \(an incomplete download\?\) at"),
        ("cut", r"diffusion_pytorch_model.safetensors is cut off or corrupt"),
        ("empty", r"diffusion_pytorch_model.safetensors is cut off or corrupt"),
        ("tensor", r"unet does not fit the model: it lacks conv_in.bias;"),
        ("foreign", r"unet does not fit the model: it has the foreign lora.weight;"),
        ("shape", r"it has conv_in.bias of shape \[3\] instead of \[16\];"),
        ("family", r"unet holds 'FluxTransformer2DModel', but DP-IQA is built on UNet2DConditionModel"),
        ("pickle", r"diffusion_pytorch_model.bin (was refused|is no torch checkpoint)"),
    ],
)
def test_an_unusable_folder_is_refused_in_one_line(folder: Path, how: str, message: str):
    corrupt(folder, how)
    with pytest.raises(PocketiqaError, match=message) as caught:
        load_base(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("unet", "message"),
    [
        ({"addition_embed_type": "text_time"}, "needs more than text.*'text_time'"),
        ({"class_embed_type": "timestep"}, "needs more than text"),
        ({"cross_attention_dim": [32, 64]}, r"cross_attention_dim is \[32, 64\]"),
        ({"in_channels": 9}, "takes 9 channels, its autoencoder gives 4"),
        ({"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}, "down block DownBlock2D takes no adapter"),
    ],
)
def test_models_that_need_more_than_a_text_context_are_refused(unet: dict[str, Any], message: str):
    fine, vae = VARIANTS["tiny"].unet, VARIANTS["tiny"].vae
    refuse_other_families(fine, vae, "here")
    with pytest.raises(PocketiqaError, match=rf"here cannot carry DP-IQA: .*{message}"):
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


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(9)
    return published("tiny")


def test_the_published_names_and_shapes_fill_the_whole_model():
    with torch.device("meta"):
        state = published("sd15")
        loaded = load_official(state)
    assert set(loaded.unused) == {name for name in state if "bnc1" in name or "classifier_dist" in name}
    used = sum(tensor.numel() for name, tensor in state.items() if name not in loaded.unused)
    assert used == sum(value.numel() for value in loaded.model.parameters()) == 1_064_660_756


def test_every_tensor_is_the_published_one(state: dict[str, Tensor]):
    model = load_official(state, variant="tiny").model
    assert torch.equal(model.text_adapter.gamma, state["gamma"])
    assert torch.equal(model.text_adapter.layers[2].state_dict()["weight"], state["text_adapter.fc.2.weight"])
    assert torch.equal(model.unet.conv_in.weight, state["unet.conv_in.weight"])
    residual = state["img_adapter.body.3.resnets.1.block2.bias"]
    assert torch.equal(model.image_adapter.state_dict()["adapter.body.3.resnets.1.block2.bias"], residual)
    assert not model.training
    torch.manual_seed(10)
    taps = [torch.randn(1, count, side, side) for count, side in ((32, 2), (32, 4), (32, 16), (16, 16))]
    with torch.no_grad():
        quality = model.decoder(taps)
    score, feature_map = by_hand(state, taps, map_side=16)
    torch.testing.assert_close(quality.score, score, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(quality.feature_map, feature_map, atol=1e-6, rtol=1e-5)


def test_old_names_of_attention_and_wrappers_are_read(state: dict[str, Tensor], tmp_path: Path):
    def older(name: str) -> str:
        name = re.sub(r"(vae\..*attentions\.0)\.to_q\.", r"\1.query.", name)
        name = re.sub(r"(vae\..*attentions\.0)\.to_out\.0\.", r"\1.proj_attn.", name)
        return "module." + name.replace("img_adapter.", "img_adapter.adapter.")

    path = tmp_path / "teacher.pth"
    torch.save({older(name): value for name, value in state.items()}, path)
    older_state = load_official(path, variant="tiny").model.state_dict()
    expected = load_official(state, variant="tiny").model.state_dict()
    assert all(torch.equal(older_state[name], expected[name]) for name in expected)


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    "name",
    [
        "gamma",
        "QFD.conv4.bias",
        "QFD.se_fuse.fc.2.weight",
        "QFD.conv_score3.weight",
        "QFD.fc1.bias",
        "vae.quant_conv.bias",
    ],
)
def test_a_missing_entry_is_named_as_the_checkpoint_names_it(state: dict[str, Tensor], name: str):
    with pytest.raises(PocketiqaError, match=rf"the state dict does not fit the model: it lacks {re.escape(name)};"):
        load_official(without(state, name), variant="tiny")


def test_foreign_and_misshapen_entries_are_named(state: dict[str, Tensor]):
    with pytest.raises(PocketiqaError, match=r"has the foreign QFD\.conv5\.weight;"):
        load_official({**state, "QFD.conv5.weight": torch.ones(1)}, variant="tiny")
    with pytest.raises(PocketiqaError, match=r"has QFD\.fc3\.bias of shape \[2\] instead of \[1\];"):
        load_official({**state, "QFD.fc3.bias": torch.ones(2)}, variant="tiny")


def test_another_family_is_no_dp_iqa_checkpoint():
    with pytest.raises(PocketiqaError, match=r"is no DP-IQA checkpoint: it holds image_encoder\.pos_embed;"):
        load_official({"image_encoder.pos_embed": torch.ones(1)}, variant="tiny")
    with pytest.raises(PocketiqaError, match="it holds nothing;"):
        load_official({}, variant="tiny")


def test_without_prompts_each_part_works_and_only_taps_asks_for_them(state: dict[str, Tensor]):
    model: DpIqa = load_official(state, variant="tiny").model
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        latents = model.encode(images)
        with pytest.raises(PocketiqaError, match=r"give prompts=\[1485, width\]"):
            model.taps(latents, images)
        taps = model.taps(latents, images, torch.randn(5, 32))
        assert model.decoder(taps).score.isfinite().all()
