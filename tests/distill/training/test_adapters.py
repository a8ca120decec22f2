import pytest
import torch
from torch.nn import functional

from distill.training.adapters import FeatureAdapter, TrainedStudent, resample, teacher_embedding
from students.registry import build_student
from tests.helpers.training import tiny_config

WHOLE = torch.ones(2, 2)


def ramp(height: int, width: int) -> torch.Tensor:
    """[2, 2, h, w]: the vertical and the horizontal position of each cell's centre, from 0 to 1."""
    vertical = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    horizontal = ((torch.arange(width) + 0.5) / width)[None].expand(height, width)
    return torch.stack([vertical, horizontal])[None].repeat(2, 1, 1, 1)


@pytest.mark.parametrize("size", [(6, 10), (12, 20), (5, 7)])
def test_whole_maps_are_resampled_as_torch_interpolates(size: tuple[int, int]):
    features = torch.randn(2, 3, 6, 10)
    expected = functional.interpolate(features, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(resample(features, WHOLE, size), expected)


def test_finer_maps_are_averaged_first():
    features = torch.randn(2, 3, 16, 24)
    torch.testing.assert_close(resample(features, WHOLE, (4, 8)), functional.avg_pool2d(features, (4, 3)))


def test_padding_plays_no_part_and_positions_meet():
    """Of a padded ramp, the valid part alone must come back, whatever lies in the padding."""
    features = ramp(16, 16)
    valid = torch.tensor([[0.5, 1.0], [1.0, 0.75]])
    resampled = resample(features, valid, (8, 6))
    inner = (slice(1, -1), slice(1, -1))  # the border of the valid part sees half a cell of padding
    for row, (tall, wide) in enumerate(valid.tolist()):
        expected = ramp(8, 6)[0] * torch.tensor([tall, wide])[:, None, None]
        torch.testing.assert_close(resampled[row][:, *inner], expected[:, *inner], atol=0.04, rtol=0)


@pytest.mark.parametrize("shape", [(5,), (5, 7, 9), (3, 2, 2)])
def test_adapters_give_the_teachers_shape_with_gradients(shape: tuple[int, ...]):
    adapter = FeatureAdapter(4, shape)
    output = adapter(torch.randn(2, 4, 6, 8), WHOLE)
    assert output.shape == (2, *shape)
    output.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in adapter.parameters())


def test_a_shape_without_meaning_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        FeatureAdapter(4, (3, 4))


def test_the_trained_student_gives_the_students_score_and_the_rows_errors():
    settings = tiny_config().student
    student = build_student(settings.name, seed=1).eval()
    model = TrainedStudent(student, FeatureAdapter(student.config.head_width, (5, 3, 3)), embeds=True).eval()
    pixels = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    feature = torch.randn(2, 5, 3, 3)
    with torch.no_grad():
        score, error, embedding, regions = model(pixels, WHOLE, feature)
        output = student(pixels)
        assert model.adapter is not None
        expected = (model.adapter(output.features, WHOLE) - feature).square().mean((1, 2, 3))
    torch.testing.assert_close(score, output.score)
    torch.testing.assert_close(error, expected)
    assert embedding.shape == (2, student.config.head_width)
    plain = TrainedStudent(student)
    assert regions is None
    assert plain(pixels, WHOLE, None)[1:] == (None, None, None)
    assert set(plain.state_dict()) == {f"student.{name}" for name in student.state_dict()}


def test_teacher_maps_are_averaged_to_embeddings():
    maps = torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(teacher_embedding(maps), maps.flatten(2).mean(2))
    assert teacher_embedding(maps[:, :, 0, 0]).shape == (2, 5)
