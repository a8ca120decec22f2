from pathlib import Path

import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from teachers.qfm_iqm import QfmIqmTeacher
from tests.teachers.qfm_iqm.tiny_qfm import batch, picture, tiny


def summaries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def passes(teacher: QfmIqmTeacher, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each pass of the backbone saw."""
    seen, summarise = [], teacher.model.summarise
    monkeypatch.setattr(teacher.model, "summarise", lambda rgb: (seen.append(len(rgb)), summarise(rgb))[1])
    return seen


def test_an_image_passes_the_backbone_once_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first, second = tiny(cache=tmp_path), tiny(cache=tmp_path, width=8)
    seen = passes(first, monkeypatch), passes(second, monkeypatch)
    images = batch(first, [picture(seed) for seed in range(3)])
    with torch.no_grad():
        first.model(images)
        first.model(images.flip(0))
        second.model(images[1:])
        second.model(images.flip(3))
    assert seen == ([1, 1, 1], [1, 1, 1])  # only the mirror images were new to the second
    assert len(summaries(tmp_path)) == 6


def test_scores_and_gradients_are_those_without_it(tmp_path: Path):
    plain, kept = tiny(), tiny(cache=tmp_path)
    images = batch(plain, [picture(seed) for seed in range(4)])
    target, weight = torch.linspace(0.2, 0.8, 4), torch.ones(4)
    for _ in range(2):  # the second time everything is read
        gradients = []
        for teacher in (plain, kept):
            fit = teacher.fitting_module().train()
            score, _ = fit((images,), target, weight)
            (score - target).square().sum().backward()
            gradients.append({name: value.grad for name, value in fit.named_parameters() if value.grad is not None})
            fit.zero_grad()
        assert gradients[0].keys() == gradients[1].keys()
        for name, value in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], value, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(kept.model(images).score, plain.model(images).score, atol=1e-5, rtol=0)
    assert kept.stamp == plain.stamp


def test_a_summary_is_the_same_to_the_bit_whatever_batch_asked_first(tmp_path: Path):
    images = batch(tiny(), [picture(seed) for seed in range(3)])
    for name, parts in (("alone", [images[:1], images[1:2], images[2:]]), ("together", [images])):
        model = tiny(cache=tmp_path / name).model
        for part in parts:
            model(part)
    alone, together = (summaries(tmp_path / name) for name in ("alone", "together"))
    assert [path.read_bytes() for path in alone] == [path.read_bytes() for path in together]


@pytest.mark.parametrize("change", [{"cells": 2}, {"halvings": 0}, {"precision": "bf16"}, {"seed": 1}])
def test_other_settings_share_nothing(tmp_path: Path, change: dict[str, object]):
    for options in ({}, change):
        teacher = tiny(cache=tmp_path, **options)
        teacher.model(batch(teacher, [picture(0)]))
    assert len({path.parent for path in summaries(tmp_path)}) == 2


def test_what_was_damaged_is_made_again(tmp_path: Path):
    teacher = tiny(cache=tmp_path)
    image = batch(teacher, [picture(0)])
    before = teacher.model(image).score
    (path,) = summaries(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    assert torch.equal(teacher.model(image).score, before)
    assert path.read_bytes() == whole


def test_a_backbone_that_is_fitted_is_refused(tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"cache is '.*', but trainable \['all'\] changes the backbone"):
        tiny(cache=tmp_path, trainable="all")
