from dataclasses import replace

import numpy as np
import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from students.config import DP_IQA_B7, dp_iqa_b7_config
from students.formats.convert import FloatStudent, read_float, run_unchecked
from students.formats.torch_form import BytesForm, PlanesForm, example, largest_stride, rebuild
from students.shipped import NAMES, model_path


def check_equal(student: FloatStudent, sizes: list[tuple[int, int]]) -> None:
    """Scores and maps of random pictures in both forms are those of ONNX Runtime."""
    rebuilt, run = rebuild(student.graph, student.contract), run_unchecked(student.graph)
    rng = np.random.default_rng(0)
    for size in sizes:
        batch = rng.integers(0, 256, (1, *size, 3), dtype=np.uint8)
        expected, rgb = run(batch), torch.from_numpy(batch)
        with torch.inference_mode():
            for values in (BytesForm(rebuilt)(rgb), PlanesForm(rebuilt)(rgb.permute(0, 3, 1, 2).float())):
                # Cells differ by more than their mean: some logits are far from zero.
                for ours, theirs, limit in zip(values[:3], expected, (1e-6, 3e-5, 3e-5), strict=True):
                    np.testing.assert_allclose(ours.numpy(), theirs, atol=limit, rtol=0)
                assert values[3].shape[0] == 1


def test_weights_go_back_by_name_and_scores_are_equal(tiny_float: FloatStudent):
    """With a coarser level, which is enlarged by a fixed factor here, and to the size of another map in the file."""
    assert max(tiny_float.contract.student["levels"]) == 32 > tiny_float.contract.student["grid"]
    check_equal(tiny_float, [(64, 96), (128, 64), (96, 224)])


@pytest.mark.parametrize("name", NAMES)
def test_shipped_students_have_no_checkpoint_and_need_none(name: str):
    student = read_float(model_path(name))
    stride = largest_stride(student.contract)
    check_equal(student, [(64, 64 + stride), (4 * stride, 64)])


def test_a_published_student_is_another_network(tiny_float: FloatStudent):
    contract = replace(tiny_float.contract, student=dp_iqa_b7_config().as_dict())
    with pytest.raises(PocketiqaError, match=f"{DP_IQA_B7} is another network .* take --format onnx or openvino"):
        rebuild(tiny_float.graph, contract)


def test_examples_have_different_sides():
    assert example(64, planes=True).shape == (1, 3, 64, 128)
    assert example(64, planes=False).shape == (1, 64, 128, 3)
    assert example(64, planes=False).dtype == torch.uint8
