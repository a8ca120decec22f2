from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from pseudo_labels.errors import PocketiqaError
from teachers.qfm_iqm import build_qfm_iqm
from tests.teachers.qfm_iqm.tiny_qfm import TINY, batch, picture, tiny

BACKBONE = "test_efficientnet"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights under timm's names."""
    path = tmp_path_factory.mktemp("weights") / "backbone.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(5)
        state = timm.create_model(BACKBONE, num_classes=0).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


def build(**options: Any):
    sizes = {name: value for name, value in TINY.items() if name != "pretrained"}
    return build_qfm_iqm(**{"backbone": BACKBONE, **sizes, **options})


def test_a_local_file_gives_the_backbone_and_states_no_licence(weights: Path):
    teacher = build(weights=weights, head="new")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = timm.create_model(BACKBONE, num_classes=0).state_dict()
    state = teacher.model.backbone.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert "local file" in teacher.stamp.licence
    assert build(pretrained=False).stamp.licence == "random weights"


def test_without_mean_and_std_those_of_timm_are_taken():
    stated = timm.get_pretrained_cfg(BACKBONE)
    assert stated is not None
    config = build(pretrained=False).model.config
    assert (config.mean, config.std) == (tuple(stated.mean), tuple(stated.std))
    chosen = build(pretrained=False, mean=(0.1, 0.2, 0.3), std=[0.4, 0.5, 0.6]).model
    assert (chosen.config.mean, chosen.config.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    torch.testing.assert_close(chosen.backbone.mean.flatten(), torch.tensor([25.5, 51.0, 76.5]))


def test_names_may_be_lists_or_separated_by_commas():
    texts = build(pretrained=False, depths="final, blocks.1", trainable="blocks.4,conv_head").model.config
    lists = build(pretrained=False, depths=["blocks.1", "final"], trainable=["blocks.4", "conv_head"]).model.config
    assert texts == lists
    assert texts.depths == ("blocks.1", "final")  # in order of execution
    assert texts.trainable == ("blocks.4", "conv_head")


def test_options_of_the_noise_reach_the_settings():
    settings = build(
        pretrained=False, noise_weight=0.3, noise_scale=0.7, memory_length=9, matching="opposite", matches=2,
        score_threshold=0.2, semantic_threshold=0.6,
    ).settings  # fmt: skip
    assert (settings.weight, settings.scale, settings.memory_length) == (0.3, 0.7, 9)
    rule = settings.rule
    assert (rule.form, rule.matches, rule.score_gap, rule.similarity) == ("opposite", 2, 0.2, 0.6)


def test_the_digest_is_that_of_the_weights_before_they_are_rounded(weights: Path):
    exact, rounded = (build(weights=weights, head="new", precision=name) for name in ("fp32", "bf16"))
    assert rounded.stamp.weights == exact.stamp.weights
    assert {value.dtype for value in rounded.model.backbone.model.parameters()} == {torch.bfloat16}
    assert {value.dtype for value in rounded.model.decoder.parameters()} == {torch.float32}


def test_building_leaves_the_callers_randomness_alone_and_is_repeatable():
    before = torch.get_rng_state()
    digests = {tiny(seed=seed).stamp.weights for seed in (0, 0, 1)}
    assert torch.equal(torch.get_rng_state(), before)
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"qfm_iqm has no head: give head=FILE .* or head='new'"),
        ({"precision": "fp16", "pretrained": False}, "precision 'fp16': choose fp32, bf16"),
        ({"head": "new"}, r"no weights of test_efficientnet: give weights=FILE, pretrained=true for timm's"),
        ({"pretrained": False, "weights": "x"}, r"pretrained is False and weights is 'x': only one can hold"),
        ({"head": "new", "weights": "nowhere"}, r"no backbone weights at nowhere"),
        ({"pretrained": False, "trainable": "blocks.9"}, "trainable 'blocks.9': test_efficientnet has no such part"),
        ({"pretrained": False, "width": 10}, "width 10 and heads 4: the heads must divide the width"),
        ({"pretrained": False, "halvings": -1}, "halvings -1: choose 0 to 3"),
        ({"pretrained": False, "cells": 2.5}, "cells 2.5: a whole number, at least 1"),
        ({"pretrained": False, "std": (1, 1)}, "three numbers each, std above 0, are needed"),
        ({"pretrained": False, "std": (1, 0, 1)}, "three numbers each, std above 0, are needed"),
        ({"pretrained": False, "backbone": "test_vit_relpos"}, "takes 160x160 pixels only: choose halvings=0"),
        (
            {"pretrained": False, "backbone": "test_vit_relpos", "halvings": 0, "square_px": 96},
            "takes 160x160 pixels only: choose halvings=0 and leave square_px out",
        ),
        ({"pretrained": False, "square_px": 0}, "square_px 0: a whole number, at least 1, or none is needed"),
    ],
)
def test_nothing_random_or_contradictory_is_taken_silently(options: dict[str, Any], message: str):
    with pytest.raises(PocketiqaError, match=message):
        build_qfm_iqm(**{"backbone": "test_efficientnet", **options})


def test_a_cache_is_used_by_the_model_and_only_where_it_is_named(tmp_path: Path):
    plain, cached = tiny(), tiny(cache=tmp_path)
    assert plain.model.summary_cache is None
    image = batch(cached, [picture(0)])
    cached.model(image)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_a_cache_is_refused_where_the_backbone_is_fitted(tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"cache is '.*', but trainable \['all'\] changes the backbone"):
        tiny(cache=tmp_path, trainable="all")
