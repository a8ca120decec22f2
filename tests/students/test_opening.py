from pathlib import Path

import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import sha256_file
from students.dp_iqa_b7 import DpIqaB7
from students.opening import find_student, open_student
from students.storage import WEIGHTS, save_student
from tests.helpers.little_b7 import settled_student, take_b0, write_checkpoint
from tests.helpers.tiny_students import tiny_student


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

    save_student(opened.student, tmp_path / "kept", about=opened.about)
    kept = open_student(tmp_path / "kept")
    assert isinstance(kept.student, DpIqaB7)
    assert (kept.name, kept.about) == ("dp-iqa-b7", opened.about)
    assert kept.student.config == opened.student.config
    expected = published.state_dict()
    assert kept.student.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in kept.student.state_dict().items())


def test_everything_else_is_told_with_what_would_be_a_student(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for path in (tmp_path / "notes.txt", tmp_path / "run", tmp_path / "nowhere.pth"):
        assert find_student(path) is None
        with pytest.raises(
            PocketiqaError, match=r"no finished student.*student\.json.*DP-IQA's published student \(\.p"
        ):
            open_student(path)


def test_our_own_weights_without_their_folder_are_told(tmp_path: Path):
    save_student(tiny_student(), tmp_path / "student")
    with pytest.raises(PocketiqaError, match=r"it lacks 'base_model.*and a student of pocketiqa as its folder"):
        open_student(tmp_path / "student" / WEIGHTS)
