"""Weights of repositories and checkpoints, found without importing a teacher."""

from pathlib import Path

import pytest

from pseudo_labels.errors import PocketiqaError
from teachers.needs import find_folder, missing_files


@pytest.fixture(autouse=True)
def _nothing_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither weights nor a cache of the hub."""
    monkeypatch.setenv("POCKETIQA_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


NAME = "owner/some-model"


def find(name: str | Path, **options) -> Path:
    return find_folder(name, option="weights", patterns=("unet/*", "vae/*"), **options)


def test_a_folder_is_taken_as_it_is(tmp_path: Path):
    assert find(tmp_path) == tmp_path


def test_a_repository_is_read_from_the_folder_for_weights(tmp_path: Path):
    local = tmp_path / "weights" / "some-model"
    local.mkdir(parents=True)
    assert find(NAME) == local


def test_a_repository_is_read_from_the_hubs_cache(tmp_path: Path):
    repository = tmp_path / "hub" / "models--owner--some-model"
    snapshot = repository / "snapshots" / ("0" * 40)
    (snapshot / "unet").mkdir(parents=True)
    (snapshot / "unet" / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    assert find(NAME) == snapshot


def test_missing_weights_are_named_with_the_folder_to_put_them_in(tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"no weights of owner/some-model.*fetch unet/\*, vae/\* of") as caught:
        find(NAME)
    assert str(tmp_path / "weights" / "some-model") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failed_download_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PocketiqaError, match=r"owner/some-model could not be fetched.*check the network") as caught:
        find(NAME, download=True)
    assert "\n" not in str(caught.value)


def test_a_file_and_nonsense_are_refused(tmp_path: Path):
    path = tmp_path / "v1-5-pruned.safetensors"
    path.write_bytes(b"")
    with pytest.raises(PocketiqaError, match="a folder in the diffusers layout is needed"):
        find(path)
    with pytest.raises(PocketiqaError, match="'no such thing': no such folder, and no repository name"):
        find("no such thing")


def test_what_is_given_is_not_missing(tmp_path: Path):
    head = tmp_path / "head.safetensors"
    head.touch()
    assert len(missing_files("dp_iqa", {})) == 3
    assert len(missing_files("dp_iqa", {"head": str(head)})) == 2
    (tmp_path / "weights" / "stable-diffusion-v1-5").mkdir(parents=True)
    (tmp_path / "weights" / "clip-vit-large-patch14").mkdir()
    assert missing_files("dp_iqa", {"head": str(head)}) == []
    assert missing_files("dp_iqa", {"head": "new"}) == []
    assert missing_files("dp_iqa", {"pretrained": False}) == []
    assert missing_files("dp_iqa", {"head": "nowhere"}) == [
        "head is 'nowhere', but there is no such file: check the path"
    ]


def test_a_stable_diffusion_with_a_whole_text_encoder_needs_no_other(tmp_path: Path):
    folder = tmp_path / "sd" / "text_encoder"
    folder.mkdir(parents=True)
    header = b'{"text_projection.weight":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert missing_files("dp_iqa", {"head": "new", "weights": str(folder.parent)}) == []
    (folder / "model.safetensors").write_bytes(b"")
    (missing,) = missing_files("dp_iqa", {"head": "new", "weights": str(folder.parent)})
    assert "openai/clip-vit-large-patch14" in missing


def test_of_sam_and_qfm_both_are_named(tmp_path: Path):
    assert [words.split(":")[0] for words in missing_files("sam_iqa", {})] == [
        "sam_iqa vit_b has no head", f"no SAM weights at {tmp_path / 'weights' / 'sam_vit_b_01ec64.pth'}"
    ]  # fmt: skip
    assert len(missing_files("qfm_iqm", {})) == 2
    assert missing_files("a_teacher_of_ones_own:build", {}) == []
