import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa.model import Conditioning
from teachers.dp_iqa.prompts import prompt_bank, save_bank, stand_in_bank
from teachers.dp_iqa.sources import Sources
from teachers.dp_iqa.variants import VARIANTS
from tests.teachers.dp_iqa.official import published


def copy_parts(folder: Path, copied: Path, names: tuple[str, ...] = ("unet", "vae")) -> Path:
    """A folder with some of the parts of a Stable Diffusion folder."""
    for name in names:
        shutil.copytree(folder / name, copied / name)
    return copied


def tiny(folder: Path, cache: Path, **options: Any) -> Sources:
    return Sources(**{"variant": "tiny", "weights": folder, "head": "new", "prompt_cache": cache, **options})


def test_a_folder_gives_the_frozen_weights_and_the_prompts(sd_folder: Path, prompt_cache: Path):
    model = tiny(sd_folder, prompt_cache).model()
    for part, module in (("unet", model.unet), ("vae", model.vae)):
        expected = load_file(sd_folder / part / "diffusion_pytorch_model.safetensors")
        state = module.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert model.prompts is not None
    assert torch.equal(model.prompts, prompt_bank(sd_folder, prompt_cache).features)


def test_the_name_of_a_repository_is_looked_up_among_the_local_weights(
    sd_folder: Path, prompt_cache: Path, tmp_path: Path
):
    copy_parts(sd_folder, tmp_path / "weights" / "some-model", ("unet", "vae", "text_encoder", "tokenizer"))
    model = tiny(Path("owner/some-model"), prompt_cache).model()
    expected = load_file(sd_folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(model.unet.conv_in.weight, expected["conv_in.weight"])


def test_prompts_come_from_another_clip_or_from_a_bank(sd_folder: Path, prompt_cache: Path, tmp_path: Path):
    bare = copy_parts(sd_folder, tmp_path / "bare")
    bank = prompt_bank(sd_folder, prompt_cache)
    save_bank(tmp_path / "bank.safetensors", bank)
    for options in ({"clip": sd_folder}, {"prompts": tmp_path / "bank.safetensors"}):
        prompts = tiny(bare, prompt_cache, **options).model().prompts
        assert prompts is not None
        assert torch.equal(prompts, bank.features)
    with pytest.raises(PocketiqaError, match=r"no text encoder with a projection: give clip=FOLDER or prompts=FILE"):
        tiny(bare, prompt_cache).model()


def test_the_authors_checkpoint_gives_every_part_and_its_licence(tmp_path: Path):
    torch.manual_seed(14)
    state = published("tiny")
    torch.save(state, tmp_path / "teacher.pth")
    save_bank(tmp_path / "bank", stand_in_bank(32, seed=2))
    sources = Sources("tiny", official=tmp_path / "teacher.pth", prompts=tmp_path / "bank")
    model = sources.model()
    assert torch.equal(model.text_adapter.gamma, state["gamma"])
    assert torch.equal(model.unet.conv_in.weight, state["unet.conv_in.weight"])
    assert model.prompts is not None
    assert torch.equal(model.prompts, stand_in_bank(32, seed=2).features)
    assert "CC BY-NC-SA 4.0" in sources.licence
    assert sources.scale.startswith("MOS / 100")
    assert sources.fitted_head is None


def test_random_weights_follow_torchs_generator_and_random_prompts_the_seed():
    def model(draw: int, seed: int):
        torch.manual_seed(draw)
        return Sources("tiny", pretrained=False, seed=seed).model()

    first, again, other = model(1, 0), model(1, 0), model(2, 5)
    assert torch.equal(first.unet.conv_in.weight, again.unet.conv_in.weight)
    assert not torch.equal(first.unet.conv_in.weight, other.unet.conv_in.weight)
    assert first.prompts is not None
    assert other.prompts is not None
    assert first.prompts.shape == (1485, 32)
    assert torch.equal(other.prompts, stand_in_bank(32, seed=5).features)
    assert not torch.equal(first.prompts, other.prompts)


def test_options_of_the_model_are_passed_on():
    conditioning = Conditioning(timestep=9)
    model = Sources("tiny", pretrained=False).model(conditioning=conditioning, trainable="head")
    assert model.conditioning is conditioning
    assert not any(value.requires_grad for value in model.unet.parameters())


def test_sizes_licence_scale_and_head_follow_the_origin(tmp_path: Path):
    random = Sources("tiny", pretrained=False)
    assert (random.sizes, random.licence) == (VARIANTS["tiny"], "random weights")
    new = Sources("sd15", head="new")
    assert new.fitted_head is None
    assert "OpenRAIL" in new.licence
    assert "NC-SA" not in new.licence
    assert new.scale == random.scale
    assert Sources("sd15", head=tmp_path / "head.safetensors").fitted_head == tmp_path / "head.safetensors"


def test_missing_weights_are_named_with_their_repository_and_folder(tmp_path: Path):
    with pytest.raises(PocketiqaError) as caught:
        Sources(head="new").model()
    message = str(caught.value)
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5" in message
    assert str(tmp_path / "weights" / "stable-diffusion-v1-5") in message
    assert "\n" not in message


def test_stable_diffusion_without_projection_needs_a_clip(sd_folder: Path, tmp_path: Path):
    folder = copy_parts(sd_folder, tmp_path / "sd")
    with pytest.raises(PocketiqaError, match=r"no weights of openai/clip-vit-large-patch14 .*clip=FOLDER"):
        Sources(weights=folder, head="new").model()


def test_an_unusable_folder_is_refused_before_the_text_encoder_is_looked_for(sd_folder: Path, tmp_path: Path):
    folder = copy_parts(sd_folder, tmp_path / "sd", ("unet",))
    with pytest.raises(PocketiqaError, match=r"sd has no vae/ \(it holds unet\): fetch"):
        Sources(weights=folder, head="new").model()
    copy_parts(sd_folder, folder, ("vae",))
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(PocketiqaError, match=r"vae has no weights .*: the download is incomplete"):
        Sources(weights=folder, head="new").model()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "tiny"}, "has no head: give head=FILE .*`pocketiqa fit-teacher` made, .* head='new'"),
        ({"variant": "sdxl"}, "variant 'sdxl': choose sd15, tiny; other"),
        ({"variant": "tiny", "pretrained": False, "weights": "w"}, "weights and pretrained=False are given"),
        ({"official": "a", "weights": "w"}, "weights and official are given"),
        ({"official": "a", "pretrained": False}, "official and pretrained=False are given"),
        ({"official": "a", "head": "new"}, "the official checkpoint has a head"),
    ],
)
def test_contradictory_origins_are_refused_at_once(options: dict[str, Any], message: str):
    with pytest.raises(PocketiqaError, match=message) as caught:
        Sources(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"variant": "tiny", "head": "new"},
            "'tiny' has no published weights: give weights=FOLDER, or pretrained=False",
        ),
        ({"official": "nowhere.pth", "prompts": "nowhere"}, "no prompt bank at nowhere"),
        ({"official": "nowhere.pth"}, "no weights of openai/clip-vit-large-patch14"),
    ],
)
def test_missing_origins_are_named(options: dict[str, Any], message: str):
    with pytest.raises(PocketiqaError, match=message):
        Sources(**options).model()
