from pathlib import Path

import pytest

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa.hub import find_folder

NAME = "owner/some-model"


@pytest.fixture(autouse=True)
def _empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POCKETIQA_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def find(name: str | Path, **options) -> Path:
    return find_folder(name, option="weights", patterns=("unet/*", "vae/*"), **options)


def test_a_folder_is_taken_as_it_is(tmp_path: Path):
    assert find(tmp_path) == tmp_path


def test_a_repository_is_found_in_the_folder_for_weights(tmp_path: Path):
    place = tmp_path / "weights" / "some-model"
    place.mkdir(parents=True)
    assert find(NAME) == place


def test_a_repository_is_found_in_the_hubs_cache(tmp_path: Path):
    repository = tmp_path / "hub" / "models--owner--some-model"
    snapshot = repository / "snapshots" / ("0" * 40)
    (snapshot / "unet").mkdir(parents=True)
    (snapshot / "unet" / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    assert find(NAME) == snapshot


def test_what_is_missing_is_named_with_the_place_where_to_put_it(tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"no weights of owner/some-model.*fetch unet/\*, vae/\* of") as caught:
        find(NAME)
    assert str(tmp_path / "weights" / "some-model") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_download_that_fails_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch):
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
