import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pseudo_labels.errors import PocketiqaError
from students.backbone import build_backbone, load_backbone_weights
from students.config import StudentConfig
from teachers.fitted_folder import FITTED, read_fitted_folder, read_seen, write_fitted_folder
from teachers.qfm_iqm import QfmIqmTeacher
from teachers.qfm_iqm.weight_average import BACKBONE_FILE, average_fitted
from teachers.registry import build_teacher
from tests.helpers import fitting
from tests.teachers.qfm_iqm.tiny_qfm import TINY, picture, tiny

BACKBONE = "test_efficientnet"


def fitted(folder: Path, shift: float = 0.0, **changes: Any) -> QfmIqmTeacher:
    """A folder as fitting writes it, whose weights differ from those of others by about ``shift``."""
    options = {"backbone": BACKBONE, **TINY, "trainable": ["blocks.2", "conv_head"], **changes}
    teacher = tiny(**options, head="new")
    with torch.no_grad():
        for value in teacher.trained_state().values():
            value.add_(shift * torch.linspace(-1, 1, value.numel()).reshape(value.shape))
    write_fitted_folder(
        folder, teacher, name="qfm_iqm", options=options, scale="MOS", licence="none", seen={folder.name}, about={}
    )
    return teacher


def score(teacher: Any, image: np.ndarray) -> float:
    return float(teacher([teacher.preprocess(image, None)]).score)


def test_the_mean_of_two_lies_between_them(tmp_path: Path):
    low, high = fitted(tmp_path / "low", -0.02), fitted(tmp_path / "high", 0.02)
    middle = fitted(tmp_path / "middle")
    average_fitted([str(tmp_path / "low"), str(tmp_path / "high")], tmp_path / "average")
    average = build_teacher(str(tmp_path / "average"))
    scores = [score(teacher, picture(3)) for teacher in (low, high, middle, average)]
    assert scores[3] == pytest.approx(scores[2], abs=1e-5)
    assert abs(scores[0] - scores[1]) > 1e-3
    assert read_seen(str(tmp_path / "average")) == {"low", "high"}
    assert average.stamp.scale == "MOS"


def test_one_alone_is_made_independent_and_can_be_moved(tmp_path: Path):
    alone = fitted(tmp_path / "alone", 0.02)
    average_fitted([str(tmp_path / "alone")], tmp_path / "average")
    (tmp_path / "average").rename(tmp_path / "elsewhere")
    moved = build_teacher(str(tmp_path / "elsewhere"))
    assert score(moved, picture(1)) == pytest.approx(score(alone, picture(1)), abs=1e-6)
    _, options = read_fitted_folder(str(tmp_path / "elsewhere"))
    assert options["weights"] == tmp_path / "elsewhere" / BACKBONE_FILE


def test_half_precision_halves_the_backbone_and_hardly_moves_the_score(tmp_path: Path):
    alone = fitted(tmp_path / "alone", 0.02)
    for half in (False, True):
        average_fitted([str(tmp_path / "alone")], tmp_path / f"{half}", half=half)
    sizes = [(tmp_path / f"{half}" / BACKBONE_FILE).stat().st_size for half in (True, False)]
    assert sizes[0] < 0.6 * sizes[1]
    # The head stays float32, of values that an archive packs to little more than half.
    packed = [len(zlib.compress((tmp_path / f"{half}" / FITTED).read_bytes())) for half in (True, False)]
    assert packed[0] < 0.7 * packed[1]
    assert score(build_teacher(str(tmp_path / "True")), picture(1)) == pytest.approx(score(alone, picture(1)), abs=2e-3)


def test_a_student_can_start_from_the_backbone(tmp_path: Path):
    fitted(tmp_path / "alone", 0.02)
    average_fitted([str(tmp_path / "alone")], tmp_path / "average", half=True)
    backbone = build_backbone(StudentConfig(BACKBONE, levels=(4, 8, 16), map_stride=16))
    load_backbone_weights(backbone, tmp_path / "average" / BACKBONE_FILE)
    given = load_file(tmp_path / "average" / BACKBONE_FILE)
    torch.testing.assert_close(backbone.state_dict()["conv_stem.weight"], given["conv_stem.weight"].float())


def test_what_cannot_be_averaged_is_refused(tmp_path: Path):
    fitted(tmp_path / "first")
    fitted(tmp_path / "wider", width=32)
    fitting_folder = tmp_path / "other"
    teacher = fitting.build(norm=True)
    write_fitted_folder(
        fitting_folder, teacher, name=fitting.NAME, options={"norm": True}, scale="", licence="", seen={"a"}, about={}
    )
    first = str(tmp_path / "first")
    for members, message in (
        ([], "no teacher to average: name at least one folder"),
        ([str(tmp_path)], "is no folder of a fitted teacher"),
        ([str(fitting_folder)], "holds a fitted .*, but only qfm_iqm can be averaged"),
        ([first, str(tmp_path / "wider")], r"another width \(32\) than .* \(16\)"),
    ):
        with pytest.raises(PocketiqaError, match=message):
            average_fitted(members, tmp_path / "out")
    assert not (tmp_path / "out").exists()
