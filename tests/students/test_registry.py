import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pseudo_labels.errors import PocketiqaError
from students.complexity import count_parameters
from students.config import StudentConfig
from students.model import PocketStudent
from students.preprocess import Preprocess
from students.registry import DEFAULT_PRESET, PARAMETER_LIMITS, POCKET_PRESETS, PRESETS, build_student, student_config
from tests.helpers.tiny_students import TINY


@pytest.mark.parametrize("name", POCKET_PRESETS)
def test_presets_keep_within_their_parameters(name: str) -> None:
    assert count_parameters(build_student(name)) <= PARAMETER_LIMITS[name]


def test_building_changes_no_later_draw_on_any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # By this function torch.manual_seed reaches the GPUs; here there may be none.
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(5)
    expected, before = torch.rand(3), len(seeded)
    torch.manual_seed(5)
    one, other = (build_student(TINY, seed=seed) for seed in (1, 1))
    assert torch.equal(torch.rand(3), expected)
    assert len(seeded) == before + 1 == 2
    state = other.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


def test_the_limits_are_those_promised() -> None:
    assert PARAMETER_LIMITS == {"pocket-s": 1_000_000, "pocket-m": 3_000_000, "pocket-l": 6_000_000}
    assert PARAMETER_LIMITS.keys() == POCKET_PRESETS.keys()
    assert DEFAULT_PRESET == "pocket-m"


def test_the_published_student_is_a_preset_like_others() -> None:
    config = student_config("dp-iqa-b7")
    assert set(PRESETS) == {*POCKET_PRESETS, "dp-iqa-b7"}
    assert config.preprocess == Preprocess(max_side=512)
    assert StudentConfig.from_dict(config.as_dict()) == config
    with torch.device("meta"):
        built = build_student("dp-iqa-b7", max_side=128)
    assert count_parameters(built) == 81_012_185
    assert built.config == replace(config, preprocess=Preprocess(max_side=128))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("levels", (16, 32)),
        ("head_width", 64),
        ("mean", (0.5, 0.5, 0.5)),
        ("std", None),
        ("pad_type", "same"),
        ("last_stage", "blocks.5"),
    ],
)
def test_the_published_architecture_cannot_be_changed(field: str, value: object) -> None:
    with pytest.raises(PocketiqaError, match=f"^{field} is .*, but dp-iqa-b7 has .*: leave {field} out"):
        replace(student_config("dp-iqa-b7"), **{field: value})


def test_the_published_student_starts_from_no_backbone_of_timm() -> None:
    with pytest.raises(PocketiqaError, match=r"^init is 'w\.safetensors', but .*load_official_student"):
        build_student("dp-iqa-b7", init="w.safetensors")
    with pytest.raises(PocketiqaError, match=r"^pretrained is True, but .*load_official_student"):
        build_student("dp-iqa-b7", pretrained=True)


def test_the_module_of_the_published_student_is_loaded_only_to_build_one() -> None:
    for file in (Path(__file__).parents[2] / "students").glob("*.py"):
        modules = {node.module for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom)}
        assert "students.dp_iqa_b7" not in modules, file


def test_timm_names_and_configurations_build() -> None:
    assert build_student("test_efficientnet").config.backbone == "test_efficientnet"
    config = replace(TINY, levels=(8, 16))
    assert build_student(config).config.levels == (8, 16)
    assert build_student(config, max_side=200).config.preprocess.max_side == 200
    assert student_config("lcnet_035") == StudentConfig("lcnet_035")


@pytest.mark.parametrize(
    ("name", "message"), [("pocket-x", "take a preset: pocket-s"), ("lcnet_03", "did you mean lcnet_0")]
)
def test_unknown_names_are_refused_with_similar_ones(name: str, message: str) -> None:
    with pytest.raises(PocketiqaError, match=message):
        build_student(name)


def test_init_replaces_the_backbone_only(tmp_path: Path) -> None:
    source, plain = build_student(TINY, seed=9), build_student(TINY, seed=1)
    assert isinstance(source, PocketStudent)
    assert isinstance(plain, PocketStudent)
    save_file(source.backbone.state_dict(), tmp_path / "w.safetensors")
    built = build_student(TINY, seed=1, init=tmp_path / "w.safetensors")
    assert isinstance(built, PocketStudent)
    assert torch.equal(built.backbone.conv_stem.weight, source.backbone.conv_stem.weight)  # pyright: ignore
    assert torch.equal(built.heads.weight, plain.heads.weight)


def test_two_origins_of_weights_are_refused() -> None:
    with pytest.raises(PocketiqaError, match=r"init is 'w.safetensors' and pretrained is True"):
        build_student(TINY, init="w.safetensors", pretrained=True)


def test_pretrained_weights_that_do_not_exist() -> None:
    # No weights are listed for it, so no network is asked.
    with pytest.raises(PocketiqaError, match="timm could not fetch pretrained weights of mobilenetv4_conv_small_035"):
        build_student("mobilenetv4_conv_small_035", pretrained=True)
