import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pseudo_labels.errors import OutputConflictError, PocketiqaError, TamperedError
from pseudo_labels.files import sha256_file
from students.storage import RECORD, WEIGHTS, load_student, read_record, save_student
from tests.helpers.tiny_students import tiny_student


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_student(tiny_student(), tmp_path / "student", about={"name": "tiny"})
    return tmp_path / "student"


def _replace_weights(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Other weights with a digest that fits them."""
    save_file(tensors, folder / WEIGHTS)
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**record, "sha256": sha256_file(folder / WEIGHTS)}))


def test_round_trip(folder: Path) -> None:
    saved, loaded = tiny_student(), load_student(folder)
    assert loaded.config == saved.config
    assert not loaded.training
    expected = saved.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert read_record(folder)["about"] == {"name": "tiny"}


def test_equal_students_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    save_student(tiny_student(), tmp_path / "again", about={"name": "tiny"})
    for name in (WEIGHTS, RECORD):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_an_earlier_student_is_replaced_but_nothing_else(folder: Path, tmp_path: Path) -> None:
    save_student(tiny_student(), folder, about={"name": "second"})
    assert read_record(folder)["about"] == {"name": "second"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear")
    with pytest.raises(OutputConflictError, match=r"holds 'diary\.txt'"):
        save_student(tiny_student(), tmp_path / "mine")
    assert (tmp_path / "mine" / "diary.txt").read_text() == "dear"


def test_altered_weights_are_refused(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-5] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(TamperedError, match=r"was altered: its record says sha256 \w{12}"):
        load_student(folder)


def test_missing_foreign_and_misshapen_tensors_are_named(folder: Path) -> None:
    good = load_file(folder / WEIGHTS)
    _replace_weights(folder, {name: value for name, value in good.items() if name != "heads.bias"})
    with pytest.raises(PocketiqaError, match=r"lacks tensor 'heads.bias': it does not fit"):
        load_student(folder)
    _replace_weights(folder, {**good, "adapter.weight": torch.zeros(2), "zzz": torch.zeros(1)})
    with pytest.raises(PocketiqaError, match=r"has the foreign tensor 'adapter.weight' and 1 more"):
        load_student(folder)
    _replace_weights(folder, {**good, "heads.bias": torch.zeros(3)})
    with pytest.raises(
        PocketiqaError, match=r"\(3,\) for 'heads.bias', but the architecture needs torch.float32 \(2,\)"
    ):
        load_student(folder)
    _replace_weights(folder, {**good, "heads.bias": torch.zeros(2, dtype=torch.float16)})
    with pytest.raises(PocketiqaError, match="float16"):
        load_student(folder)


def test_garbage_with_a_fitting_digest_is_refused(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"garbage")
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**record, "sha256": sha256_file(folder / WEIGHTS)}))
    with pytest.raises(TamperedError, match="not a safetensors file"):
        load_student(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "format version None"),
        ('{"format": 9}', "format version 9"),
        ('{"format": 1, "config": {}, "sha256": ""}', "lacks 'about'"),
        ('{"format": 1, "config": {}, "sha256": "", "about": {}, "x": 1}', "unknown field 'x'"),
    ],
)
def test_unfit_records_are_refused(folder: Path, text: str, message: str) -> None:
    (folder / RECORD).write_text(text)
    with pytest.raises(PocketiqaError, match=message):
        load_student(folder)


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PocketiqaError, match="no student record at"):
        load_student(tmp_path / "nowhere")
    (folder / WEIGHTS).unlink()
    with pytest.raises(PocketiqaError, match="no student weights at"):
        load_student(folder)
