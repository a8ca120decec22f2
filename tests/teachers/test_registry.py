import subprocess
import sys
from pathlib import Path

import pytest

from pseudo_labels.errors import PocketiqaError
from teachers.registry import TEACHERS, TeacherEntry, build_teacher, missing_requirements

OWN = "tests.helpers.own_teacher"


def test_importing_the_registry_and_asking_it_needs_no_torch():
    script = (
        "import sys; from teachers.registry import TEACHERS, missing_requirements; "
        "found = [missing_requirements(name) for name in TEACHERS]; print(found, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.split()[-1] == "False", done.stderr


def test_missing_distributions_are_named(monkeypatch: pytest.MonkeyPatch):
    entry = TeacherEntry(lambda: dict, "", ("torch", "a-package-that-is-not-there"))
    monkeypatch.setitem(TEACHERS, "greedy", entry)
    assert missing_requirements("greedy") == ["a-package-that-is-not-there"]
    with pytest.raises(
        PocketiqaError, match=r"'greedy' needs a-package-that-is-not-there: .*pocketiqa\[train,teachers\]"
    ):
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
    ("name", "options", "named"),
    [
        ("referense", {}, r"unknown teacher 'referense': choose .*reference"),
        ("no_such_module:build", {}, "no module 'no_such_module'"),
        (f"{OWN}:builder", {}, "no function 'builder'"),
        (f"{OWN}:NOT_A_FUNCTION", {}, "no function 'NOT_A_FUNCTION'"),
        (f"{OWN}:build", {"colour": 1}, r"'colour'; its options are: memory_images, refuse_wide, nan_below"),
        ("reference", {"metric": "fsim"}, r"'metric'; its options are: metrics, max_side"),
        (f"{OWN}:no_stamp", {}, "object without stamp, needs_reference, feature_names, preprocess, to, __call__"),
        (f"{OWN}:stamp_as_text", {}, "its stamp is str"),
    ],
)
def test_what_cannot_be_built_says_why(name: str, options: dict[str, object], named: str):
    with pytest.raises(PocketiqaError, match=named):
        build_teacher(name, **options)
