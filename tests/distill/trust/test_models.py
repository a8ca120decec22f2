import shutil
from pathlib import Path

import pytest

from distill.evaluation.predictions import Predictor
from distill.trust.models import Model, distinct, open_models
from pseudo_labels.errors import PocketiqaError
from students.base import score_images
from students.storage import save_student
from tests.distill.trust.conftest import DARKNESS, Compared
from tests.helpers.shared import shared_data
from tests.helpers.tiny_students import photographs, tiny_student


def test_the_twin_has_the_scores_of_the_file(compared: Compared, tmp_path: Path):
    save_student(tiny_student(), tmp_path / "folder")
    exported, folder = open_models([str(compared.student), str(tmp_path / "folder")])
    assert (exported.kind, folder.kind) == ("onnx", "student")
    picture = photographs()[0]
    for model in (exported, folder):
        twin = model.twin()
        assert float(score_images(twin, [picture])[0].score) == pytest.approx(model.score(picture), abs=1e-4)
        assert not any(value.requires_grad for value in twin.parameters())


def test_one_model_twice_is_refused(compared: Compared, tmp_path: Path):
    shutil.copy(compared.student, tmp_path / "copy.onnx")
    with pytest.raises(PocketiqaError, match=r"copy\.onnx is the same model as"):
        open_models([str(compared.student), str(tmp_path / "copy.onnx")])


def test_two_of_one_name_are_told_apart():
    predictor = Predictor("tiny", {}, lambda rgb, _: 0.5)
    models = [Model("tiny", "given", key * 64, "teacher", predictor) for key in "ab"]
    other = Model("other", "given", "c" * 64, "teacher", predictor)
    assert [model.name for model in distinct([*models, other])] == ["tiny (aaaaaa)", "tiny (bbbbbb)", "other"]


def test_what_has_no_twin_says_why():
    (darkness,) = open_models([DARKNESS])
    with pytest.raises(PocketiqaError, match="darkness is no student"):
        darkness.twin()


def test_brisque_is_compared_by_its_folder():
    pytest.importorskip("cv2")
    models = open_models([DARKNESS], brisque=shared_data("anchors", "brisque"))
    assert [model.name for model in models] == ["darkness", "brisque"]
    assert 0 <= models[1].score(photographs()[0]) <= 1
