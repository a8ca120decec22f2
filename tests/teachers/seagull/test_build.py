from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from pseudo_labels.errors import PocketiqaError
from teachers.registry import build_teacher, file_options
from teachers.seagull.build import Memory, build_seagull
from teachers.seagull.model import VARIANTS, language_config, meta_model
from teachers.seagull.teacher import SeagullTeacher
from tests.teachers.seagull.published import ALL_QUESTIONS, save_published

TINY: dict[str, Any] = {"variant": "tiny", "pretrained": False}


@pytest.fixture(scope="module")
def folder(teacher: SeagullTeacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_published(tmp_path_factory.mktemp("published"), teacher.model, teacher.tokens, kind="safetensors")


def halves(photo: np.ndarray) -> list[np.ndarray]:
    upper = np.zeros(photo.shape[:2], dtype=bool)
    upper[:40] = True
    return [upper, ~upper]


def test_a_checkpoint_answers_as_the_model_that_it_was_written_from(
    folder: Path, teacher: SeagullTeacher, photo: np.ndarray
):
    options = {"variant": "tiny", "precision": "fp32", "questions": ALL_QUESTIONS, "most_tokens": 6}
    loaded = build_teacher("seagull", **options, weights=folder)
    assert isinstance(loaded, SeagullTeacher)
    for given, expected in zip(*(each.score_regions(photo, halves(photo)) for each in (loaded, teacher)), strict=True):
        assert given.answers == expected.answers
        assert (given.status, given.reason, given.words) == (expected.status, expected.reason, expected.words)
        assert given.importance == pytest.approx(expected.importance, abs=1e-6, nan_ok=True)
    assert loaded.stamp.licence.startswith("SEAGULL weights: Apache-2.0")
    assert loaded.stamp.weights != teacher.stamp.weights


def test_equal_options_give_equal_stamps_and_other_ones_do_not():
    stamp = build_seagull(**TINY).stamp
    assert build_seagull(**TINY).stamp == stamp
    others: list[dict[str, Any]] = [
        {"seed": 1}, {"precision": "fp32"}, {"together": True}, {"questions": ("quality",)},
    ]  # fmt: skip
    for other in others:
        assert build_seagull(**TINY, **other).stamp != stamp, other


def test_half_precision_scores_nearly_alike(photo: np.ndarray):
    teachers = [build_seagull(**TINY, precision=precision, most_tokens=1) for precision in ("fp32", "bf16")]
    assert {value.dtype for value in teachers[1].model.language.parameters()} == {torch.bfloat16}
    assert {value.dtype for value in teachers[1].model.tower.parameters()} == {torch.float16}
    first = []
    for teacher in teachers:
        pixels, crop = teacher.preprocess(photo, None)
        picture = teacher.look(pixels)
        with torch.inference_mode():
            whole = torch.ones((1, 128, 128), dtype=torch.bool)
            regions = teacher.model.embed(picture, whole, crop[None])
        first.append(teacher._ask(picture, regions, "quality")[0][1][0])
    assert np.corrcoef(first[0].numpy(), first[1].numpy())[0, 1] > 0.99


def test_building_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_seagull(**TINY, lora_rank=2)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"variant": "13b"}, "unknown SEAGULL variant '13b'"),
        ({**TINY, "questions": ("importance",)}, "choose from type, quality, importance, severity, quality among them"),
        ({**TINY, "questions": ("quality", "colour")}, "questions \\['quality', 'colour'\\]: choose from"),
        ({**TINY, "precision": "fp8"}, "precision 'fp8': choose fp32, bf16"),
        ({**TINY, "load_bits": 3}, "load_bits 3: choose 16, 8, 4"),
        ({**TINY, "device_map": "balanced"}, "device_map 'balanced': choose auto"),
        ({**TINY, "regions_at_once": 0}, "regions_at_once 0: it must be at least 1"),
        ({**TINY, "lora_rank": -1}, "lora_rank -1"),
        ({**TINY, "weights": "somewhere"}, "pretrained is False: leave out weights"),
        ({"weights": "/no/such/folder"}, "no folder at /no/such/folder: fetch all files"),
    ],
)
def test_what_cannot_be_built_says_why(options: dict[str, Any], said: str):
    with pytest.raises(PocketiqaError, match=said):
        build_seagull(**options)


def test_missing_weights_name_the_folder_to_put_them_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POCKETIQA_WEIGHTS", str(tmp_path))
    with pytest.raises(PocketiqaError, match=f"no SEAGULL weights at {tmp_path / 'SEAGULL'}: fetch the checkpoint"):
        build_seagull()


def test_options_that_name_files():
    assert file_options("seagull") == {"weights", "head", "tower_weights"}


def test_a_small_model_takes_a_classifiers_weights_as_its_tower(tmp_path: Path):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        classifier = timm.create_model("mobilenetv2_100", pretrained=False)
    save_file(classifier.state_dict(), tmp_path / "classifier.safetensors")
    options: dict[str, Any] = {"variant": "small", "pretrained": False, "precision": "fp32"}
    teacher = build_seagull(**options, tower_weights=tmp_path / "classifier.safetensors")
    tower = teacher.model.tower.state_dict()
    assert all(torch.equal(value, classifier.state_dict()[name]) for name, value in tower.items())
    shapes = [tuple(level.shape) for level in teacher.look(torch.zeros(3, 128, 128)).maps]
    assert shapes == [(24, 32, 32), (32, 16, 16), (96, 8, 8), (320, 4, 4)]
    assert teacher.stamp.weights != build_seagull(**options).stamp.weights
    with pytest.raises(PocketiqaError, match=r"does not fit the vision tower convnext_large_mlp: it lacks stages_0"):
        build_seagull(**TINY, tower_weights=tmp_path / "classifier.safetensors")


def test_a_device_map_puts_each_part_on_its_device(folder: Path, photo: np.ndarray):
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "meta", "model.layers": "cpu"}
    prepare = Memory("fp32", device_map=places)
    device_of = prepare.target().prepare(meta_model(VARIANTS["tiny"], language_config(VARIANTS["tiny"].language)))
    assert device_of("language.model.layers.1.mlp.up_proj.weight") == "meta"  # the most exact name counts
    assert device_of("language.model.layers.0.mlp.up_proj.weight") == "cpu"
    assert device_of("extractor.res2.weight") == "cpu"
    spread = build_seagull(variant="tiny", weights=folder, precision="fp32", device_map={"": "cpu"}, most_tokens=3)
    plain = build_seagull(variant="tiny", weights=folder, precision="fp32", most_tokens=3)
    answers = [
        [score.answers for score in teacher.to("cpu").score_regions(photo, halves(photo))]
        for teacher in (spread, plain)
    ]
    assert answers[0] == answers[1]
    assert spread.stamp == plain.stamp


@pytest.mark.parametrize("bits", [4, 8])
def test_fewer_bits_need_bitsandbytes(bits: int, folder: Path, photo: np.ndarray):
    if find_spec("bitsandbytes") is None:
        with pytest.raises(PocketiqaError, match=f"load_bits {bits} needs bitsandbytes: install it"):
            build_seagull(variant="tiny", weights=folder, load_bits=bits)
        return
    packed = build_seagull(variant="tiny", weights=folder, load_bits=bits, most_tokens=3)
    plain = build_seagull(variant="tiny", weights=folder, most_tokens=3)
    weight = packed.model.get_parameter("language.model.layers.0.mlp.up_proj.weight")
    assert weight.dtype in (torch.uint8, torch.int8)
    assert len(packed.score_regions(photo, halves(photo))) == 2
    given = torch.randn((1, 7, 64), generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad():
        logits = [each.model.language(inputs_embeds=given).logits.float().flatten() for each in (packed, plain)]
    assert np.corrcoef(*(value.numpy() for value in logits))[0, 1] > 0.9  # measured: 0.98 with 4 bits, 0.9998 with 8
    assert packed.stamp != plain.stamp
