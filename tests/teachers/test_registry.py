import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distill.recipe.load import parse_settings
from pseudo_labels.errors import PocketiqaError
from teachers.composite.multi_view import MultiView, Views
from teachers.registry import TEACHERS, TeacherEntry, build_teacher, file_options, lacking, missing_requirements
from tests.helpers.own_teacher import Contrast

OWN = "tests.helpers.own_teacher"


def test_importing_the_registry_and_asking_it_needs_no_torch():
    script = (
        "import sys; from teachers.registry import TEACHERS, missing_requirements; "
        "lacking = [missing_requirements(name) for name in TEACHERS]; print(lacking, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.split()[-1] == "False", done.stderr


def test_missing_distributions_are_named(monkeypatch: pytest.MonkeyPatch):
    entry = TeacherEntry(lambda: dict, "", ("torch", "a-package-that-is-not-there"))
    monkeypatch.setitem(TEACHERS, "greedy", entry)
    assert missing_requirements("greedy") == ["a-package-that-is-not-there"]
    with pytest.raises(PocketiqaError, match=r"'greedy' needs a-package-that-is-not-there: .*\[train,teachers\]"):
        build_teacher("greedy")


def test_a_teacher_of_ones_own_is_built_with_its_options():
    assert missing_requirements(f"{OWN}:build") == []
    assert build_teacher(f"{OWN}:build", nan_below=0.25).stamp.options == {"nan_below": 0.25}


def test_a_module_beside_the_user_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "beside_me_teacher.py").write_text(f"from {OWN} import build\n")
    monkeypatch.setattr(sys, "path", [*(entry for entry in sys.path if entry), str(Path(__file__).parents[2])])
    monkeypatch.chdir(tmp_path)
    assert build_teacher("beside_me_teacher:build").stamp.name == "contrast"


@pytest.mark.parametrize(
    ("name", "options"), [("reference", {"metrics": "gmsd"}), (f"{OWN}:build", {"nan_below": 0.1})]
)
def test_every_teacher_can_judge_several_views(name: str, options: dict[str, Any]):
    words = [f"{key}={value}" for key, value in options.items()]
    teacher = build_teacher(name, **parse_settings([*words, "views={crops: 5, flips: true}"]))
    plain = build_teacher(name, **options)
    assert isinstance(teacher, MultiView)
    assert teacher.views == Views(crops=5, flips=True)
    assert teacher.teacher.stamp == plain.stamp
    assert build_teacher(name, **options, views=Views(5, flips=True)).stamp == teacher.stamp != plain.stamp


@pytest.mark.parametrize("views", [None, {}, {"crops": 0}, {"crops": 0, "crop_fraction": 0.5}, Views()])
def test_the_whole_image_alone_is_the_teacher_itself(views: Any):
    teacher = build_teacher(f"{OWN}:build", views=views)
    assert isinstance(teacher, Contrast)
    assert teacher.stamp == build_teacher(f"{OWN}:build").stamp


def test_views_are_read_before_anything_is_built(monkeypatch: pytest.MonkeyPatch):
    def build() -> Contrast:
        raise MemoryError("a big model")

    monkeypatch.setitem(TEACHERS, "big", TeacherEntry(lambda: build, "", ("torch",)))
    with pytest.raises(PocketiqaError, match="views: flips is 'yes'"):
        build_teacher("big", views={"flips": "yes"})


def test_a_builder_with_views_of_its_own_keeps_them(monkeypatch: pytest.MonkeyPatch):
    got: list[Any] = []

    def build(views: str | None = "front") -> Contrast:
        got.append(views)
        return Contrast()

    monkeypatch.setitem(TEACHERS, "own", TeacherEntry(lambda: build, "", ("torch",)))
    for options in ({}, {"views": "side"}, {"views": None}):
        assert isinstance(build_teacher("own", **options), Contrast)
    assert got == ["front", "side", None]
    with pytest.raises(PocketiqaError, match=r"its options are: views$"):
        build_teacher("own", colour=1)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("referense", {}, r"unknown teacher 'referense': choose .*reference"),
        ("no_such_module:build", {}, "no module 'no_such_module'"),
        (f"{OWN}:builder", {}, "no function 'builder'"),
        (f"{OWN}:NOT_A_FUNCTION", {}, "no function 'NOT_A_FUNCTION'"),
        (f"{OWN}:build", {"colour": 1}, r"'colour'; its options are: memory_images, refuse_wide, nan_below, views$"),
        ("reference", {"metric": "fsim"}, r"'metric'; its options are: metrics, max_side, views$"),
        (f"{OWN}:percent", {"colour": 1}, r"'colour'; its options are: views$"),
        (f"{OWN}:build", {"views": {"crop": 5}}, "views: unknown crop; choose from crops, crop_fraction, flips"),
        ("reference", {"views": {"crops": "many"}}, "views: crops is 'many'"),
        ("reference", {"views": 5}, "views 5: give a mapping"),
        (f"{OWN}:no_stamp", {}, "object without stamp, needs_reference, feature_names, preprocess, to, __call__"),
        (f"{OWN}:stamp_as_text", {}, "its stamp is str"),
    ],
)
def test_what_cannot_be_built_says_why(name: str, options: dict[str, object], named: str):
    with pytest.raises(PocketiqaError, match=named):
        build_teacher(name, **options)


@pytest.mark.parametrize("name", [name for name, entry in TEACHERS.items() if entry.speed])
def test_options_of_speed_change_no_stamp(name: str):
    fast: dict[str, Any] = {
        "channels_last": True, "attention_slicing": 1, "compile": False, "checkpoint_blocks": True, "download": True,
        "device_map": {"": "cpu"}, "regions_at_once": 3,
    }  # fmt: skip
    tiny: dict[str, Any] = {"variant": "tiny", "pretrained": False}
    stamp = build_teacher(name, **tiny).stamp
    assert build_teacher(name, **tiny, **{option: fast[option] for option in TEACHERS[name].speed}).stamp == stamp


def test_options_that_name_files_are_told_from_the_others():
    assert file_options("dp_iqa") == {"weights", "head", "official", "clip", "prompts", "prompt_cache"}
    assert file_options("sam_iqa") == {"head", "weights"}
    assert file_options(f"{OWN}:build") == set()


def test_all_that_a_big_teacher_lacks_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POCKETIQA_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("teachers.registry._installed", lambda distribution: distribution != "diffusers")
    with pytest.raises(PocketiqaError) as caught:
        build_teacher("dp_iqa")
    message = str(caught.value)
    assert message.startswith("teacher 'dp_iqa' lacks 4 things: (a) needs diffusers: install them with pip install")
    for words in ("has no head", "stable-diffusion-v1-5/stable-diffusion-v1-5", "openai/clip-vit-large-patch14"):
        assert words in message
    assert "\n" not in message
    assert len(lacking("sam_iqa", {})) == 2
    assert len(lacking("qfm_iqm", {})) == 2
    assert lacking("qfm_iqm", {"pretrained": False}) == []


def test_a_single_missing_thing_is_said_by_itself(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(PocketiqaError, match=r"^qfm_iqm has no head: give head=FILE"):
        build_teacher("qfm_iqm", pretrained=True)


def test_asking_what_a_teacher_lacks_imports_neither_torch_nor_diffusers():
    script = (
        "import sys; from teachers.registry import TEACHERS, lacking; "
        "words = [lacking(name, {}) for name in TEACHERS]; print({'torch', 'diffusers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout == "set()\n", done.stderr
