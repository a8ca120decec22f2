import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError
from pseudo_labels.files import sha256_file
from students.dp_iqa_b7 import DpIqaB7
from students.paths import RECORD, find_student
from students.storage import WEIGHTS, load_student, open_student, read_record, save_student
from tests.helpers.little_b7 import settled_student, take_b0, write_checkpoint
from tests.helpers.records import alter, rewrite
from tests.helpers.tiny_students import tiny_student


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_student(tiny_student(), tmp_path / "student", about={"name": "tiny"})
    return tmp_path / "student"


def _replace_weights(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Other weights with a digest that fits them."""
    save_file(tensors, folder / WEIGHTS)
    rewrite(folder / RECORD, sha256=sha256_file(folder / WEIGHTS))


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
    with pytest.raises(IntegrityError, match=r"was altered: its record says sha256 \w{12}"):
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
    rewrite(folder / RECORD, sha256=sha256_file(folder / WEIGHTS))
    with pytest.raises(IntegrityError, match="not a safetensors file"):
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


def test_an_altered_record_is_refused_and_one_without_a_checksum_is_read(folder: Path) -> None:
    record = read_record(folder)
    alter(folder / RECORD, about={"name": "other"})
    with pytest.raises(IntegrityError, match=r"student\.json was altered"):
        load_student(folder)
    (folder / RECORD).write_text(json.dumps(record))  # as earlier versions wrote it
    assert open_student(folder).name == "tiny"


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PocketiqaError, match="no student record at"):
        load_student(tmp_path / "nowhere")
    (folder / WEIGHTS).unlink()
    with pytest.raises(PocketiqaError, match="no student weights at"):
        load_student(folder)


def test_a_folder_or_the_training_folder_around_it(tmp_path: Path):
    save_student(tiny_student(), tmp_path / "run" / "student", about={"step": 3})
    for path in (tmp_path / "run", tmp_path / "run" / "student", str(tmp_path / "run")):
        opened = open_student(path)
        assert (opened.name, opened.about) == ("student", {"step": 3})
        assert opened.digest == sha256_file(tmp_path / "run" / "student" / WEIGHTS)
        assert not opened.student.training
    save_student(tiny_student(), tmp_path / "named", about={"name": "tiny"})
    assert open_student(tmp_path / "named").name == "tiny"


def test_the_authors_checkpoint_and_the_folder_made_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    take_b0(monkeypatch)
    published = settled_student()
    file = write_checkpoint(published, tmp_path / "student.pth")
    opened = open_student(file)
    assert isinstance(opened.student, DpIqaB7)
    assert opened.student.config.preprocess.max_side == 512
    assert opened.about["weights"]["licence"].startswith("CC BY-NC-SA 4.0")
    assert opened.about["weights"]["digest"] == opened.digest == sha256_file(file)

    save_student(opened.student, tmp_path / "saved", about=opened.about)
    reopened = open_student(tmp_path / "saved")
    assert isinstance(reopened.student, DpIqaB7)
    assert (reopened.name, reopened.about) == ("dp-iqa-b7", opened.about)
    assert reopened.student.config == opened.student.config
    expected = published.state_dict()
    assert reopened.student.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in reopened.student.state_dict().items())


def test_anything_else_is_refused_with_what_a_student_would_be(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for path in (tmp_path / "notes.txt", tmp_path / "run", tmp_path / "nowhere.pth"):
        assert find_student(path) is None
        with pytest.raises(
            PocketiqaError, match=r"no finished student.*student\.json.*DP-IQA's published student \(\.p"
        ):
            open_student(path)


def test_our_own_weights_without_their_folder_are_refused(tmp_path: Path):
    save_student(tiny_student(), tmp_path / "student")
    with pytest.raises(PocketiqaError, match=r"it lacks base_model.*and a student of pocketiqa as its folder"):
        open_student(tmp_path / "student" / WEIGHTS)
