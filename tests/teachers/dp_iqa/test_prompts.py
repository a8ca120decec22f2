import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionConfig

from pseudo_labels.errors import IntegrityError, PocketiqaError
from teachers.dp_iqa.prompts import (
    DISTORTIONS,
    PROMPTS,
    QUALITIES,
    SCENES,
    PromptBank,
    TextEncoder,
    encoder_digest,
    load_bank,
    prompt_bank,
    save_bank,
    stand_in_bank,
)
from teachers.needs import has_projection


def test_there_are_1485_different_prompts():
    assert (len(QUALITIES), len(SCENES), len(DISTORTIONS)) == (5, 9, 33)
    assert len(PROMPTS) == len(set(PROMPTS)) == 1485


def test_quality_is_the_outermost_loop_and_distortion_the_innermost():
    assert PROMPTS[0] == "a photo of a animal with jpeg2000 compression artifacts, which is of bad quality"
    assert PROMPTS[1] == "a photo of a animal with jpeg compression artifacts, which is of bad quality"
    assert PROMPTS[33] == "a photo of a cityscape with jpeg2000 compression artifacts, which is of bad quality"
    assert PROMPTS[33 * 9] == "a photo of a animal with jpeg2000 compression artifacts, which is of poor quality"
    assert PROMPTS[-1] == "a photo of a others with other realistic artifacts, which is of perfect quality"


@pytest.fixture
def bank() -> PromptBank:
    return stand_in_bank(8, seed=3)


def test_a_bank_holds_the_features_of_all_prompts_and_is_made_once(sd_folder: Path, prompt_cache: Path):
    seen: list[tuple[int, int]] = []
    made = prompt_bank(sd_folder, prompt_cache / "once", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (1485, 1485)
    assert tuple(made.features.shape) == (1485, 32)
    alone = TextEncoder(sd_folder).features(PROMPTS[700:701])
    torch.testing.assert_close(made.features[700:701], alone, atol=1e-6, rtol=1e-5)
    seen.clear()
    again = prompt_bank(sd_folder, prompt_cache / "once", progress=lambda done, total: seen.append((done, total)))
    assert not seen
    assert again.encoder == made.encoder
    assert torch.equal(again.features, made.features)


def test_an_altered_bank_is_made_anew_if_the_encoder_is_at_hand(sd_folder: Path, tmp_path: Path):
    made = prompt_bank(sd_folder, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"\0\0\0\0")
    assert torch.equal(prompt_bank(sd_folder, tmp_path).features, made.features)
    assert path.read_bytes() == whole


def test_another_encoder_gets_a_bank_of_its_own(sd_folder: Path, prompt_cache: Path, tmp_path: Path):
    other = tmp_path / "sd"
    shutil.copytree(sd_folder, other)
    weights = other / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "text_projection.weight": 2 * tensors["text_projection.weight"]}, weights)
    first, second = prompt_bank(sd_folder, prompt_cache), prompt_bank(other, tmp_path / "cache")
    torch.testing.assert_close(second.features, 2 * first.features)
    assert second.encoder != first.encoder
    (path,) = (tmp_path / "cache").iterdir()
    save_bank(path, first)  # a bank under the name of another's
    assert torch.equal(prompt_bank(other, tmp_path / "cache").features, second.features)


def test_equal_banks_give_equal_bytes(bank: PromptBank, tmp_path: Path):
    for name in ("a", "b"):
        save_bank(tmp_path / name, bank)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = load_bank(tmp_path / "a")
    assert torch.equal(loaded.features, bank.features)
    assert loaded.encoder == bank.encoder


def test_an_altered_bank_is_refused_where_no_encoder_is_at_hand(bank: PromptBank, tmp_path: Path):
    path = tmp_path / "bank.safetensors"
    save_bank(path, bank)
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(IntegrityError, match=r"bank\.safetensors was altered.*give clip=FOLDER"):
        load_bank(path)


def test_what_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"no prompt bank at .*nowhere: give clip=FOLDER"):
        load_bank(tmp_path / "nowhere")


def test_a_bank_of_fewer_prompts_is_refused(tmp_path: Path):
    path = tmp_path / "bank.safetensors"
    save_bank(path, PromptBank(torch.zeros(10, 8), "another"))
    with pytest.raises(PocketiqaError, match="made of other prompts than these 1485"):
        load_bank(path)


# Of different lengths, so that some are padded.
TEXTS = [PROMPTS[0], PROMPTS[17], "a photo", PROMPTS[1484]]


@pytest.fixture
def clip_folder(sd_folder: Path, tmp_path: Path) -> Path:
    """A whole CLIP, both halves in one file, beside its tokenizer, as OpenAI's repositories on the hub have it."""
    text = CLIPTextModelWithProjection.from_pretrained(sd_folder / "text_encoder")
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    whole = CLIPModel(CLIPConfig(text_config=text.config.to_dict(), vision_config=vision.to_dict(), projection_dim=32))
    whole.load_state_dict({**whole.state_dict(), **text.state_dict()})
    folder = tmp_path / "clip"
    whole.save_pretrained(folder)
    shutil.copytree(sd_folder / "tokenizer", folder, dirs_exist_ok=True)
    return folder


def by_hand(folder: Path, text: str) -> torch.Tensor:
    """One text without padding: the end token's state, normalised, projected."""
    model = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder").eval()
    tokens = CLIPTokenizer.from_pretrained(folder / "tokenizer")(text, return_tensors="pt")
    with torch.no_grad():
        states = model(**tokens).last_hidden_state
    return states[0, -1] @ load_file(folder / "text_encoder" / "model.safetensors")["text_projection.weight"].T


def test_features_are_pooled_at_the_end_token_and_projected(sd_folder: Path):
    features = TextEncoder(sd_folder).features(TEXTS)
    expected = torch.stack([by_hand(sd_folder, text) for text in TEXTS])
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=1e-5)
    assert features[0].sub(features[3]).abs().max() > 1e-3


def test_a_whole_clip_gives_the_features_of_its_text_half(sd_folder: Path, clip_folder: Path):
    torch.testing.assert_close(TextEncoder(clip_folder).features(TEXTS), TextEncoder(sd_folder).features(TEXTS))


def test_a_text_encoder_without_projection_is_refused_as_stable_diffusion_ships_it(sd_folder: Path, tmp_path: Path):
    folder = tmp_path / "sd"
    shutil.copytree(sd_folder, folder)
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    del tensors["text_projection.weight"]
    save_file(tensors, path)
    assert has_projection(sd_folder)
    assert not has_projection(folder)
    with pytest.raises(PocketiqaError, match=r"lacks 'text_projection.weight'.*openai/clip-vit-large-patch14.*clip="):
        TextEncoder(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.json"])
def test_a_missing_file_is_named(clip_folder: Path, name: str):
    (clip_folder / name).unlink()
    (clip_folder / "tokenizer.json").unlink(missing_ok=True)
    with pytest.raises(PocketiqaError, match=name) as caught:
        encoder_digest(clip_folder)
    assert "\n" not in str(caught.value)


def test_corrupt_weights_are_refused_in_one_line(clip_folder: Path):
    path = clip_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PocketiqaError, match="holds no usable CLIP text encoder") as caught:
        TextEncoder(clip_folder)
    assert "\n" not in str(caught.value)


def test_the_digest_is_that_of_weights_configuration_and_tokenizer(clip_folder: Path):
    before = encoder_digest(clip_folder)
    (clip_folder / "README.md").write_text("of no consequence")
    assert encoder_digest(clip_folder) == before
    (clip_folder / "merges.txt").write_text("#version: 0.2\n")
    changed = encoder_digest(clip_folder)
    assert changed != before
    config = json.loads((clip_folder / "config.json").read_text())
    (clip_folder / "config.json").write_text(json.dumps({**config, "logit_scale_init_value": 1.0}))
    assert encoder_digest(clip_folder) not in (before, changed)
