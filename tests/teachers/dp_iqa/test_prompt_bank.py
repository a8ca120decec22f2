import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pseudo_labels.errors import PocketiqaError, TamperedError
from teachers.dp_iqa.prompt_bank import PromptBank, load_bank, prompt_bank, save_bank, stand_in_bank
from teachers.dp_iqa.prompts import PROMPTS
from teachers.dp_iqa.text_encoder import TextEncoder


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
    with pytest.raises(TamperedError, match=r"bank\.safetensors was altered.*give clip=FOLDER"):
        load_bank(path)


def test_what_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"no prompt bank at .*nowhere: give clip=FOLDER"):
        load_bank(tmp_path / "nowhere")


def test_a_bank_of_fewer_prompts_is_refused(tmp_path: Path):
    path = tmp_path / "bank.safetensors"
    save_bank(path, PromptBank(torch.zeros(10, 8), "another"))
    with pytest.raises(PocketiqaError, match="made of other prompts than these 1485"):
        load_bank(path)
