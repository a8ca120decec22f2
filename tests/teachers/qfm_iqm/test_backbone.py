from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pseudo_labels.errors import PocketiqaError
from teachers.qfm_iqm import QfmIqmTeacher
from teachers.qfm_iqm.backbone import Backbone, create_timm, known_depths, load_local
from tests.helpers.shared import shared_data
from tests.teachers.qfm_iqm.tiny_qfm import batch, picture, tiny

GRAY: Any = ((0.5,) * 3, (0.5,) * 3)


def backbone(name: str, *depths: str) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Backbone(create_timm(name), (0.5,) * 3, (0.5,) * 3, depths)


def rgb(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("name", "depths", "channels", "multiple_px", "fixed_px"),
    [
        ("test_efficientnet", ("blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "final"), 440, 1, None),
        ("test_resnet", ("act1", "layer1", "layer2", "layer3", "layer4"), 400, 1, None),
        ("test_convnext", ("stages.0", "stages.1", "stages.2", "stages.3"), 168, 1, None),
        ("test_vit", ("0", "2", "3", "5"), 256, 16, None),
        ("test_vit_relpos", ("1", "3", "5", "8"), 384, 16, (160, 160)),
    ],
)
def test_many_kinds_of_models_are_read_at_several_depths(
    name: str, depths: tuple[str, ...], channels: int, multiple_px: int, fixed_px: tuple[int, int] | None
):
    model = backbone(name)
    assert model.depths == depths
    assert sum(model.channels) == channels
    assert (model.multiple_px, model.fixed_px) == (multiple_px, fixed_px)
    height, width = fixed_px or (96, 128)
    maps = model(rgb(height, width))
    assert [one.shape[:2] for one in maps] == [(2, count) for count in model.channels]
    assert all(one.shape[2] * width == one.shape[3] * height for one in maps)


def test_the_maps_are_those_of_timms_own_reader():
    model = backbone("test_efficientnet")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        own: Any = timm.create_model("test_efficientnet", num_classes=0).eval()
    x = (rgb(64, 96) / 255 - 0.5) / 0.5
    last, maps = own.forward_intermediates(x)
    for actual, expected in zip(model(rgb(64, 96)), [*maps, last], strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_chosen_depths_come_in_order_of_execution():
    everything = backbone("test_efficientnet")(rgb(64, 64))
    some = backbone("test_efficientnet", "final", "blocks.1")
    assert some.depths == ("blocks.1", "final")
    for actual, expected in zip(some(rgb(64, 64)), (everything[1], everything[5]), strict=True):
        assert torch.equal(actual, expected)
    assert known_depths(create_timm("test_vit")) == ("0", "1", "2", "3", "4", "5")


def test_batch_norms_statistics_never_change_and_nothing_in_it_is_random():
    model = Backbone(timm.create_model("test_efficientnet", num_classes=0, drop_path_rate=0.5), *GRAY).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = model(rgb(64, 64))[-1], model(rgb(64, 64))[-1]
    assert torch.equal(first, second)
    assert model.training
    assert not any(part.training for part in model.model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert any(isinstance(part, nn.BatchNorm2d) for part in model.modules())


@pytest.mark.parametrize(
    ("name", "depths", "message"),
    [
        ("test_efficientnett", (), "no backbone 'test_efficientnett': did you mean test_efficientnet"),
        ("hf-hub:timm/test_vit", (), "no backbone 'hf-hub:timm/test_vit'"),
        ("test_efficientnet", ("blocks.9",), r"no depth 'blocks.9': choose blocks.0, .*, final"),
        ("mixer_s32_224", (), "gives no feature map"),
    ],
)
def test_what_cannot_be_read_is_refused(name: str, depths: tuple[str, ...], message: str):
    with pytest.raises(PocketiqaError, match=message):
        backbone(name, *depths)


def test_a_padding_that_a_model_cannot_have_is_refused():
    with pytest.raises(PocketiqaError, match="test_vit has no choice of padding: leave pad_type out"):
        create_timm("test_vit", pad_type="same")


def test_without_a_network_the_file_to_fetch_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PocketiqaError, match=r"fetch model.safetensors of timm/mobilenetv3_small_050.* weights=FILE"):
        create_timm("mobilenetv3_small_050", pretrained=True)


def test_a_local_file_gives_the_weights(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        whole = timm.create_model("test_efficientnet")  # with its classifier
    save_file({name: value.clone() for name, value in whole.state_dict().items()}, path)
    model = create_timm("test_efficientnet")
    load_local(model, path)
    state = whole.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_file_of_another_model_is_refused(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    model = create_timm("test_efficientnet")
    with pytest.raises(PocketiqaError, match=r"no backbone weights at .*weights.safetensors: give weights=FILE"):
        load_local(model, path)
    path.write_bytes(b"nothing")
    with pytest.raises(PocketiqaError, match="not a safetensors file"):
        load_local(model, path)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    del state["conv_stem.weight"]
    save_file(state, path)
    with pytest.raises(PocketiqaError, match=r"another backbone \(it lacks conv_stem.weight\)"):
        load_local(model, path)
    save_file({**state, "conv_stem.weight": torch.zeros(1)}, path)
    with pytest.raises(PocketiqaError, match=r"conv_stem.weight of shape \[1\] instead of \[24, 3, 3, 3\]"):
        load_local(model, path)


def test_real_weights_load():
    path = shared_data("weights", "mobilenetv2_100_in1k.safetensors")
    model = create_timm("mobilenetv2_100", pad_type="same")
    load_local(model, path)
    given = load_file(path)
    assert torch.equal(model.state_dict()["bn2.running_var"], given["bn2.running_var"].float())
    taps = Backbone(model, *GRAY)
    assert taps.channels == (16, 24, 32, 64, 96, 160, 320, 1280)
    with torch.no_grad():
        assert float(taps(rgb(64, 64))[-1].mean()) > 0.01  # the weights' statistics fit: activations live


def summaries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def passes(teacher: QfmIqmTeacher, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each pass of the backbone saw."""
    seen, summarise = [], teacher.model.summarise
    monkeypatch.setattr(teacher.model, "summarise", lambda rgb: (seen.append(len(rgb)), summarise(rgb))[1])
    return seen


def test_an_image_passes_the_backbone_once_for_all_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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


def test_scores_and_gradients_are_those_without_a_cache(tmp_path: Path):
    plain, cached = tiny(), tiny(cache=tmp_path)
    images = batch(plain, [picture(seed) for seed in range(4)])
    target, weight = torch.linspace(0.2, 0.8, 4), torch.ones(4)
    for _ in range(2):  # the second time everything is read
        gradients = []
        for teacher in (plain, cached):
            fit = teacher.fitting_module().train()
            score, _ = fit((images,), target, weight)
            (score - target).square().sum().backward()
            gradients.append({name: value.grad for name, value in fit.named_parameters() if value.grad is not None})
            fit.zero_grad()
        assert gradients[0].keys() == gradients[1].keys()
        for name, value in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], value, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(cached.model(images).score, plain.model(images).score, atol=1e-5, rtol=0)
    assert cached.stamp == plain.stamp


def test_a_summary_does_not_depend_on_the_batch_that_needed_it_first(tmp_path: Path):
    images = batch(tiny(), [picture(seed) for seed in range(3)])
    for name, parts in (("alone", [images[:1], images[1:2], images[2:]]), ("together", [images])):
        model = tiny(cache=tmp_path / name).model
        for part in parts:
            model(part)
    alone, together = (summaries(tmp_path / name) for name in ("alone", "together"))
    assert [path.read_bytes() for path in alone] == [path.read_bytes() for path in together]


@pytest.mark.parametrize("change", [{"cells": 2}, {"halvings": 0}, {"precision": "bf16"}, {"seed": 1}])
def test_other_settings_have_other_files(tmp_path: Path, change: dict[str, object]):
    for options in ({}, change):
        teacher = tiny(cache=tmp_path, **options)
        teacher.model(batch(teacher, [picture(0)]))
    assert len({path.parent for path in summaries(tmp_path)}) == 2


def test_a_corrupt_summary_is_computed_again(tmp_path: Path):
    teacher = tiny(cache=tmp_path)
    image = batch(teacher, [picture(0)])
    before = teacher.model(image).score
    (path,) = summaries(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    assert torch.equal(teacher.model(image).score, before)
    assert path.read_bytes() == whole


def test_leftovers_of_killed_processes_are_removed_from_the_cache(tmp_path: Path):
    teacher = tiny(cache=tmp_path)
    teacher.model(batch(teacher, [picture(0)]))
    (path,) = summaries(tmp_path)
    leftover = path.with_name(f".{path.name}.4711-ab.tmp")
    leftover.touch()
    again = tiny(cache=tmp_path)
    again.model(batch(again, [picture(1)]))
    assert not leftover.exists()
    assert len(summaries(tmp_path)) == 2
