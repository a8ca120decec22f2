from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.stages.adapted_student import StartStudent, shared_parts, trained_parts
from distill.stages.map_head_fitting import Heads
from pseudo_labels.errors import PocketiqaError
from students.base import score_images
from students.config import RegionHeadConfig
from students.registry import build_student, new_student, student_config
from students.runtime import Scorer
from students.storage import save_student
from tests.helpers.tiny_students import TINY, export_tiny, photographs, settle, tiny_student


def test_a_file_opens_as_the_student_that_it_is(tmp_path: Path):
    report = export_tiny(tmp_path / "tiny.onnx")
    start = StartStudent.open(str(report.path))
    assert (start.digest, start.half, start.dropped) == (report.digest, False, [])
    scorer = Scorer(report.path)
    ours = [float(output.score) for output in score_images(start.student, photographs())]
    assert ours == pytest.approx([scorer.score(image).score for image in photographs()], abs=1e-5)
    # Other heads are another student; the first one stays as it is.
    other = start.with_heads(Heads(start.heads.weight * 2, start.heads.bias))
    assert other.heads.weight.detach().numpy() == pytest.approx(2 * start.student.heads.weight.detach().numpy())
    assert start.heads.weight.shape == (2, TINY.head_width)


def test_a_checkpoint_begins_as_its_export_would(tmp_path: Path):
    student = tiny_student()
    save_student(student, tmp_path / "student")
    start = StartStudent.open(str(tmp_path / "student"))
    expected = [float(output.score) for output in score_images(student.eval(), photographs())]
    assert [float(one.score) for one in score_images(start.student, photographs())] == pytest.approx(expected, abs=1e-5)


def test_the_shipped_student_says_what_it_loses():
    start = StartStudent.open("pocket-m")
    assert start.half
    assert any(sentence.startswith("The second look is left out") for sentence in start.dropped)


def test_heads_of_the_embedding_are_left_out_with_a_word(tmp_path: Path):
    start = StartStudent.open(str(export_tiny(tmp_path / "tiny.onnx").path))
    # What they hold does not matter: that they are there does.
    contract = replace(start.contract, pairs=Any, types=Any)  # pyright: ignore[reportArgumentType]
    lines = replace(start, contract=contract).dropped
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["fit-pairs`.", "fit-types`."]


def test_a_region_head_is_left_out(tmp_path: Path):
    config = replace(TINY, regions=RegionHeadConfig((4, 8), 8, 8))
    report = export_tiny(tmp_path / "regions.onnx", settle(build_student(config, seed=1)))
    start = StartStudent.open(str(report.path))
    assert start.student.config == replace(start.student.config, regions=None)
    assert [sentence.split(",")[0] for sentence in start.dropped] == ["The maps of regions are left out"]
    assert [float(one.score) for one in score_images(start.student, photographs())] == pytest.approx(
        [Scorer(report.path).score(image).score for image in photographs()], abs=1e-5
    )


def test_what_cannot_be_adapted_is_refused(tmp_path: Path):
    with pytest.raises(PocketiqaError, match="in 8 bits, which cannot be trained: adapt the float student"):
        StartStudent.open("pocket-s-int8")
    with pytest.raises(PocketiqaError, match=r"missing\.onnx"):
        StartStudent.open(str(tmp_path / "missing.onnx"))


@pytest.mark.parametrize(
    ("name", "free"), [("pocket-m", ["backbone.blocks.5"]), ("pocket-s", ["backbone.blocks.3", "backbone.blocks.4"])]
)
def test_the_last_blocks_are_those_behind_the_second_coarsest_map(name: str, free: list[str]):
    student = new_student(student_config(name))
    frozen = shared_parts(student)  # pyright: ignore[reportArgumentType]
    assert trained_parts(student, frozen) == [*free, "neck", "heads"]  # pyright: ignore[reportArgumentType]
    assert set(frozen) >= {"backbone.conv_stem", "backbone.bn1"}
    assert np.all([one.startswith("backbone.") for one in frozen])


def test_of_a_single_map_neck_and_heads_are_trained():
    student = new_student(replace(TINY, levels=(16,)))
    assert shared_parts(student) == ("backbone",)  # pyright: ignore[reportArgumentType]
    assert trained_parts(student, ("backbone",)) == ["neck", "heads"]  # pyright: ignore[reportArgumentType]
