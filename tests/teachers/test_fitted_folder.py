import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.files import sha256_file
from teachers.fitted_folder import is_fitted_folder, read_fitted_folder, read_seen, write_fitted_folder
from teachers.registry import build_teacher
from tests.helpers import fitting
from tests.helpers.records import rewrite

SAID: dict[str, Any] = {"scale": "MOS of a test", "licence": "none", "seen": {"b", "a"}, "about": {"step": 3}}


def written(folder: Path, value: float = 0.25, **options: Any) -> str:
    teacher = fitting.build(norm=True)
    with torch.no_grad():
        for tensor in teacher.trained_state().values():
            tensor.fill_(value)
    return write_fitted_folder(folder, teacher, name=fitting.NAME, options={"norm": True, **options}, **SAID)


def changed(folder: Path, **values: Any) -> None:
    rewrite(folder / "teacher.json", **values)


def test_a_fitted_teacher_comes_back(tmp_path: Path):
    folder = tmp_path / "teacher"
    assert not is_fitted_folder(str(folder))
    digest = written(folder, head="new", smallest_px=9)
    assert is_fitted_folder(str(folder))
    assert digest == sha256_file(folder / "fitted.safetensors")
    name, options = read_fitted_folder(str(folder))
    assert name == fitting.NAME
    assert options == {"norm": True, "smallest_px": 9, "head": folder / "fitted.safetensors"}
    teacher = build_teacher(name, **options)
    assert isinstance(teacher, fitting.SmallTeacher)
    assert all(
        bool((tensor == 0.25).all()) for tensor in teacher.trained_state().values() if tensor.is_floating_point()
    )
    assert teacher.stamp.scale == "MOS of a test"
    assert build_teacher(str(folder)).stamp == teacher.stamp


def test_it_says_which_images_it_has_learned_from(tmp_path: Path):
    written(tmp_path / "fit" / "teacher")
    assert read_seen(str(tmp_path / "fit")) == {"a", "b"}
    (tmp_path / "fit" / "teacher" / "seen.txt").unlink()
    for name in (tmp_path / "fit", "sam_iqa"):
        with pytest.raises(PocketiqaError, match=f"{name} does not say which images it was fitted to"):
            read_seen(str(name))


def test_the_folder_of_the_run_stands_for_its_teacher(tmp_path: Path):
    written(tmp_path / "fit" / "teacher")
    assert is_fitted_folder(str(tmp_path / "fit"))
    assert build_teacher(str(tmp_path / "fit")).stamp == build_teacher(str(tmp_path / "fit" / "teacher")).stamp
    assert not is_fitted_folder(str(tmp_path))
    with pytest.raises(PocketiqaError, match=r"is no folder of a fitted teacher: it has no teacher\.json"):
        read_fitted_folder(str(tmp_path))


def test_equal_teachers_give_equal_bytes_and_paths_become_text(tmp_path: Path):
    for name in ("one", "two"):
        written(tmp_path / name, weights=Path("somewhere") / "base.npy")
    for name in ("teacher.json", "fitted.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    record = json.loads((tmp_path / "one" / "teacher.json").read_text())
    assert record["options"]["weights"] == "somewhere/base.npy"
    assert record["about"] == {"step": 3}


def test_an_earlier_folder_is_replaced_and_killed_writers_leave_nothing(tmp_path: Path):
    first = written(tmp_path / "teacher", 0.25)
    leftover = tmp_path / ".teacher.123.staged"
    leftover.mkdir()
    (leftover / "fitted.safetensors").write_bytes(b"half")
    second = written(tmp_path / "teacher", 0.5)
    assert first != second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["teacher"]
    names = sorted(path.name for path in (tmp_path / "teacher").iterdir())
    assert names == ["fitted.safetensors", "seen.txt", "teacher.json"]
    head = read_fitted_folder(str(tmp_path / "teacher"))[1]["head"]
    assert sha256_file(head) == second


def test_a_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path / "teacher")
    assert is_fitted_folder("~/teacher")
    assert read_fitted_folder("~/teacher")[1]["head"] == tmp_path / "teacher" / "fitted.safetensors"


@pytest.mark.parametrize("name", ["reference", "sam_iqa", fitting.NAME, "nowhere", ""])
def test_names_of_teachers_are_no_folders(name: str):
    assert not is_fitted_folder(name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 2}, r"teacher\.json is not a record of format 1 \(format 2\): fit the teacher again, or upgrade"),
        ({"options": None}, "is not a record of format 1"),
        ({"teacher": 3}, "is not a record of format 1"),
    ],
)
def test_a_record_of_another_format_is_refused(tmp_path: Path, values: dict[str, Any], message: str):
    written(tmp_path / "teacher")
    changed(tmp_path / "teacher", **values)
    with pytest.raises(PocketiqaError, match=message):
        read_fitted_folder(str(tmp_path / "teacher"))


def test_a_damaged_record_is_refused(tmp_path: Path):
    written(tmp_path / "teacher")
    path = tmp_path / "teacher" / "teacher.json"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(IntegrityError, match=r"record of a fitted teacher at .*teacher\.json is not valid JSON"):
        read_fitted_folder(str(tmp_path / "teacher"))
    path.write_text("[1]")
    with pytest.raises(PocketiqaError, match=r"is not a record of format 1 \(format None\)"):
        read_fitted_folder(str(tmp_path / "teacher"))
    path.unlink()
    with pytest.raises(PocketiqaError, match="is no folder of a fitted teacher"):
        read_fitted_folder(str(tmp_path / "teacher"))


def test_what_was_learned_must_be_there_and_whole(tmp_path: Path):
    written(tmp_path / "teacher")
    path = tmp_path / "teacher" / "fitted.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="was altered"):
        build_teacher(str(tmp_path / "teacher"))
    path.unlink()
    with pytest.raises(PocketiqaError, match=r"no fitted teacher at .*fitted\.safetensors: give a file"):
        build_teacher(str(tmp_path / "teacher"))
