import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa.model import DpIqa
from teachers.dp_iqa.official import load_official
from teachers.dp_iqa.variants import VARIANTS, build_unet, build_vae
from tests.teachers.dp_iqa.test_decoder import by_hand


def published(variant: str) -> dict[str, Tensor]:
    """A state dict with the names and shapes of the published one, made without the code under test."""
    sizes = VARIANTS[variant]
    text, (first, second, third, fourth) = sizes.text_width, sizes.unet["block_out_channels"]
    width, reduction = sizes.decoder.width, sizes.decoder.reduction
    shapes: dict[str, tuple[int, ...]] = {"gamma": (text,)}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    layer("text_adapter.fc.0", text, text)
    layer("text_adapter.fc.2", text, text)
    layer("img_adapter.conv_in", first, 3 * 64, 3, 3)
    previous = first
    for block, count in enumerate((first, second, third, fourth)):
        if count != previous:
            layer(f"img_adapter.body.{block}.in_conv", count, previous, 1, 1)
        for unit in (0, 1):
            layer(f"img_adapter.body.{block}.resnets.{unit}.block1", count, count, 3, 3)
            layer(f"img_adapter.body.{block}.resnets.{unit}.block2", count, count, 1, 1)
        previous = count
    # The up blocks give the widths of the down blocks in reverse: conv1 reads the finest.
    for number, count in enumerate((first, second, third, fourth), start=1):
        layer(f"QFD.conv{number}", width, count, 3, 3)
    for name in ("se1", "se2", "se3", "se4", "se_fuse"):
        layer(f"QFD.{name}.fc.0", width // reduction, width, bias=False)
        layer(f"QFD.{name}.fc.2", width, width // reduction, bias=False)
    layer("QFD.fuse_conv", width, 4 * width, 3, 3)
    counts = (width, *sizes.decoder.narrow)
    for number in (1, 2, 3):
        layer(f"QFD.conv_score{number}", counts[number], counts[number - 1], 1, 1)
    hidden, cells = sizes.decoder.hidden, sizes.decoder.grid**2
    for number, shape in enumerate(((hidden, counts[-1] * cells), (hidden, hidden), (1, hidden)), start=1):
        layer(f"QFD.fc{number}", *shape)
    layer("QFD.classifier_dist", 24, 512)
    shapes |= {f"QFD.bnc1.{name}": (512,) for name in ("weight", "bias", "running_mean", "running_var")}
    state = {name: torch.randn(shape) * 0.05 for name, shape in shapes.items()}
    state |= {f"vae.{name}": value for name, value in build_vae(sizes.vae).state_dict().items()}
    return state | {f"unet.{name}": value for name, value in build_unet(sizes.unet).state_dict().items()}


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
    score, feature_map = by_hand(state, taps, grid=16)
    torch.testing.assert_close(quality.score, score, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(quality.feature_map, feature_map, atol=1e-6, rtol=1e-5)


def test_old_names_of_attention_and_wrappers_are_understood(state: dict[str, Tensor], tmp_path: Path):
    def older(name: str) -> str:
        name = re.sub(r"(vae\..*attentions\.0)\.to_q\.", r"\1.query.", name)
        name = re.sub(r"(vae\..*attentions\.0)\.to_out\.0\.", r"\1.proj_attn.", name)
        return "module." + name.replace("img_adapter.", "img_adapter.adapter.")

    path = tmp_path / "teacher.pth"
    torch.save({older(name): value for name, value in state.items()}, path)
    found = load_official(path, variant="tiny").model.state_dict()
    expected = load_official(state, variant="tiny").model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


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
