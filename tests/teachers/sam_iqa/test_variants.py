import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from teachers.needs import find_sam_checkpoint
from teachers.sam_iqa.variants import VARIANTS, load_vit, read_checkpoint
from tests.teachers.sam_iqa.tiny_sam import random_vit

Content = dict[str, Any]


class Malicious:
    """Runs a command when it is unpickled by a careless reader."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran-code-of-a-checkpoint",)


def test_the_encoder_of_a_whole_sam_is_loaded(checkpoint: Path):
    loaded, expected = load_vit("tiny", checkpoint).state_dict(), random_vit().state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_half_precision_is_widened(checkpoint: Path, tmp_path: Path):
    path = tmp_path / "half.pth"
    torch.save({key: value.half() for key, value in read_checkpoint(checkpoint).items()}, path)
    assert {value.dtype for value in load_vit("tiny", path).state_dict().values()} == {torch.float32}


def test_missing_weights_are_named_with_file_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POCKETIQA_WEIGHTS", str(tmp_path / "elsewhere"))
    for given, folder in [(None, tmp_path / "elsewhere"), (tmp_path, tmp_path)]:
        expected = f"no SAM weights at {folder / 'sam_vit_l_0b3195.pth'}: fetch sam_vit_l_0b3195.pth .* put it there"
        with pytest.raises(PocketiqaError, match=expected) as caught:
            find_sam_checkpoint("vit_l", given)
        assert "\n" not in str(caught.value)
    with pytest.raises(PocketiqaError, match="'tiny' has no official weights: give weights=FILE, or pretrained=False"):
        find_sam_checkpoint("tiny", None)


def test_weights_may_be_a_folder_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    official, own = tmp_path / "sam_vit_b_01ec64.pth", tmp_path / "own.pth"
    official.touch()
    own.touch()
    monkeypatch.setenv("POCKETIQA_WEIGHTS", str(tmp_path))
    assert find_sam_checkpoint("vit_b", None) == official
    monkeypatch.delenv("POCKETIQA_WEIGHTS")
    assert find_sam_checkpoint("vit_b", tmp_path) == official
    assert find_sam_checkpoint("vit_b", own) == own


def change(key: str, value: torch.Tensor | None) -> Callable[[Content], Any]:
    return lambda content: {name: item for name, item in (content | {key: value}).items() if item is not None}


REFUSED: dict[str, tuple[Callable[[Content], Any], str]] = {
    "lacks a tensor": (change("image_encoder.blocks.3.norm1.bias", None), r"it lacks blocks.3.norm1.bias; give"),
    "foreign tensor": (change("image_encoder.extra", torch.zeros(1)), r"it has the foreign extra; give"),
    "another shape": (
        change("image_encoder.neck.1.bias", torch.zeros(5)),
        r"it has neck.1.bias of shape \[5\] instead of",
    ),
    "another part": (change("teacher.weight", torch.zeros(1)), r"no SAM checkpoint: foreign entries teacher.weight;"),
    "wrapped": (lambda content: {"model": content, "epoch": 3}, r"holds the entries epoch, model, not SAM's tensors"),
    "another model": (lambda _: {"conv.weight": torch.zeros(1)}, r"foreign entries conv.weight; needed are image_enc"),
    "no encoder": (lambda _: {"mask_decoder.x": torch.zeros(1)}, r"only the entries mask_decoder.x; needed are image"),
    "a list": (lambda _: [torch.zeros(1)], r"holds list, not SAM's tensors"),
    "one tensor": (lambda _: torch.zeros(1), r"holds Tensor, not SAM's tensors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_checkpoints_of_another_kind_are_refused(case: str, checkpoint: Path, tmp_path: Path):
    altered, message = REFUSED[case]
    path = tmp_path / "other.pth"
    torch.save(altered(read_checkpoint(checkpoint)), path)
    with pytest.raises(PocketiqaError, match=message) as caught:
        load_vit("tiny", path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_size_of_sam_is_named(checkpoint: Path):
    message = "holds SAM tiny, not vit_b: give variant='tiny' or sam_vit_b_01ec64.pth"
    with pytest.raises(PocketiqaError, match=message):
        load_vit("vit_b", checkpoint)


def test_code_in_a_pickle_is_refused_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"image_encoder.x": Malicious()}, tmp_path / "zipped.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Malicious(), protocol=2))
    for name in ("zipped.pth", "plain.pth"):
        with pytest.raises(PocketiqaError, match=rf"{name} was refused: .* asks for (posix|nt).mkdir"):
            load_vit("tiny", tmp_path / name)
    assert not (tmp_path / "ran-code-of-a-checkpoint").exists()


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_half_a_download_is_refused(fraction: float, checkpoint: Path, tmp_path: Path):
    data = checkpoint.read_bytes()
    path = tmp_path / "half.pth"
    path.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(PocketiqaError, match=r"(is cut off or corrupt|is no torch checkpoint) .*: fetch it again"):
        load_vit("tiny", path)


def test_a_page_of_text_is_no_checkpoint(tmp_path: Path):
    path = tmp_path / "page.pth"
    path.write_text("<html>404 Not Found</html>")
    with pytest.raises(PocketiqaError, match="is no torch checkpoint"):
        load_vit("tiny", path)


def test_an_official_name_promises_the_official_content(checkpoint: Path, tmp_path: Path):
    path = tmp_path / "sam_vit_b_01ec64.pth"
    path.write_bytes(checkpoint.read_bytes())
    with pytest.raises(PocketiqaError, match=r"corrupt or half downloaded: .* the official one 01ec64d29a2fca3f"):
        load_vit("vit_b", path)


def test_official_names_carry_the_first_digits_of_their_digest():
    for variant in VARIANTS.values():
        assert variant.checkpoint == "" or f"_{variant.md5[:6]}.pth" in variant.checkpoint
        assert len(variant.md5) in (0, hashlib.md5().digest_size * 2)
