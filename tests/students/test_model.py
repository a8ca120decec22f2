from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pseudo_labels.errors import IntegrityError, PocketiqaError
from students.base import Student
from students.config import StudentConfig
from students.model import PocketStudent
from students.registry import build_student, new_student
from tests.helpers.tiny_students import TINY, export_tiny, photographs, tiny_student


@pytest.fixture(scope="module")
def student() -> Student:
    return tiny_student()


def _batch(height: int, width: int, count: int = 1) -> torch.Tensor:
    rows, columns = np.arange(height) % 256, np.arange(width) % 256
    parts = [image[rows % image.shape[0]][:, columns % image.shape[1]] for image in photographs()]
    return torch.from_numpy(np.stack([parts[index % len(parts)] for index in range(count)]))


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (64, 384), (383, 131), (100, 100), (127, 255)])
@pytest.mark.parametrize("pad_type", ["", "same"])
def test_any_size_from_64_pixels(size: tuple[int, int], pad_type: str) -> None:
    student = tiny_student(replace(TINY, pad_type=pad_type))
    with torch.inference_mode():
        output = student(_batch(*size, count=2))
    rows, columns = output.quality_map.shape[1:]
    # One cell for 16 pixels; what is left over is a cell of its own, or (padded as "same") is not.
    assert (rows, columns) == tuple(side // 16 if pad_type else -(-side // 16) for side in size)
    assert output.features.shape == (2, TINY.head_width, rows, columns)
    assert torch.isfinite(output.features).all()
    assert 0 <= float(output.quality_map.min()) <= float(output.quality_map.max()) <= 1
    assert float(output.weight_map.min()) > 0


def test_score_is_the_weighted_mean_of_the_map(student: Student) -> None:
    with torch.inference_mode():
        output = student(_batch(96, 128, 3))
    quality, weight = output.quality_map.double().numpy(), output.weight_map.double().numpy()
    expected = [np.average(quality[index], weights=weight[index]) for index in range(3)]
    np.testing.assert_allclose(output.score.numpy(), expected, atol=1e-6)
    assert np.ptp(expected) > 0.01


def test_configuration_without_colours_is_resolved() -> None:
    assert new_student(StudentConfig("test_resnet")).config.mean == (0.5, 0.5, 0.5)
    assert new_student(TINY).config == replace(TINY, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def test_scores_do_not_depend_on_the_batch(student: Student) -> None:
    batch = _batch(96, 128, 7)
    with torch.inference_mode():
        together = student(batch).score
        alone = torch.cat([student(batch[index : index + 1]).score for index in range(7)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_every_parameter_learns() -> None:
    student = new_student(TINY).train()
    output = student(_batch(64, 96, 4))
    (output.score.sum() + output.features.square().mean()).backward()
    dead = [name for name, parameter in student.named_parameters() if parameter.grad is None]
    assert dead == []


def test_new_student_is_undecided_and_weighs_evenly() -> None:
    student = new_student(TINY).train()
    with torch.no_grad():
        output = student(_batch(64, 96, 4))
    assert float((output.score - 0.5).abs().max()) < 0.1
    assert float(output.weight_map.std()) < 0.1


def test_state_holds_no_constants_and_seed_decides() -> None:
    one, same, other = new_student(TINY, seed=1), new_student(TINY, seed=1), new_student(TINY, seed=2)
    assert isinstance(one, PocketStudent)
    assert isinstance(other, PocketStudent)
    assert not [name for name in one.state_dict() if name.startswith("normalise")]
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(one.heads.weight, other.heads.weight)


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    new_student(TINY)
    assert torch.equal(torch.rand(1), expected)


def test_autocast_keeps_scores_in_full_precision(student: Student) -> None:
    batch = _batch(96, 128, 2)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = student(batch)
    assert mixed.score.dtype == mixed.quality_map.dtype == torch.float32
    with torch.inference_mode():
        # bfloat16 has 8 bits; worst seen 0.004.
        torch.testing.assert_close(mixed.score, student(batch).score, rtol=0, atol=0.03)


@pytest.fixture(scope="module")
def exported(student: Student, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "student.onnx"
    export_tiny(path, student)
    return path


def test_an_exported_student_goes_on_with_its_own_scores(student: Student, exported: Path) -> None:
    again = build_student(TINY, seed=3, init=exported).eval()
    batch = _batch(96, 128, count=2)
    with torch.inference_mode():
        for one, other in zip(student(batch), again(batch), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    again.train()(batch).score.sum().backward()
    # Batch normalisation learns again, though it was folded.
    assert all(parameter.grad is not None for parameter in again.parameters())


def test_an_exported_student_of_another_architecture_or_altered_is_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(PocketiqaError, match="it is another architecture"):
        build_student(replace(TINY, head_width=16), init=exported)
    with pytest.raises(PocketiqaError, match="it is another architecture"):
        build_student(replace(TINY, levels=(8, 16)), init=exported)
    data = bytearray(exported.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "altered.onnx").write_bytes(data)
    with pytest.raises(IntegrityError, match="was altered"):
        build_student(TINY, init=tmp_path / "altered.onnx")
    with pytest.raises(PocketiqaError, match="no model at"):
        build_student(TINY, init=tmp_path / "nowhere.onnx")
