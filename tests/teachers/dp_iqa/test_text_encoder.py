import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionConfig

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa.prompts import PROMPTS
from teachers.dp_iqa.text_encoder import TextEncoder, encoder_digest, has_projection

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


def test_damaged_weights_are_refused_in_one_line(clip_folder: Path):
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
