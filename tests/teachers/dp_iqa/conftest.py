"""A tiny Stable Diffusion on disk, in the layout of the published ones."""

import json
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from teachers.dp_iqa.prompts import PROMPTS
from teachers.dp_iqa.variants import VARIANTS, build_unet, build_vae

WORD_END = "</w>"


@pytest.fixture(autouse=True)
def _same_numbers_in_every_run():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_weights_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Messages about missing weights must not depend on the folders of whoever runs the tests."""
    monkeypatch.setenv("POCKETIQA_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def write_tokenizer(folder: Path) -> int:
    """Write a byte-pair tokenizer with one token for each word of the prompts; returns the size of its vocabulary."""
    words = sorted({word for prompt in PROMPTS for word in prompt.replace(",", " ").replace("_", " ").split()})
    letters = sorted({letter for word in words for letter in word} | set(",_"))
    tokens = [*letters, *(letter + WORD_END for letter in letters)]
    merges = []
    for word in words:
        parts = [*word[:-1], word[-1] + WORD_END]
        while len(parts) > 1:
            pair = (parts[0], parts[1])
            if pair not in merges:
                merges.append(pair)
                tokens.append("".join(pair))
            parts[:2] = ["".join(pair)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77}))
    return len(tokens)


def text_config(vocabulary: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=32,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
    )


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """unet, vae, text_encoder (with its projection) and tokenizer; copy it before changing it."""
    folder = tmp_path_factory.mktemp("sd")
    torch.manual_seed(7)
    build_unet(VARIANTS["tiny"].unet).save_pretrained(folder / "unet")
    build_vae(VARIANTS["tiny"].vae).save_pretrained(folder / "vae")
    size = write_tokenizer(folder / "tokenizer")
    CLIPTextModelWithProjection(text_config(size)).save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture(scope="session")
def prompt_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of cached prompt banks, shared by all tests."""
    return tmp_path_factory.mktemp("prompts")
