import numpy as np
import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from students.base import Normalise, Student, StudentOutput, check_batch, freeze_parts, score_images
from students.preprocess import Preprocess
from tests.helpers.tiny_students import TINY, photographs, tiny_student


@pytest.fixture(scope="module")
def student() -> Student:
    return tiny_student()


def test_normalisation_is_that_of_its_definition() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    rgb = torch.randint(0, 256, (2, 8, 9, 3), dtype=torch.uint8)
    expected = (rgb.numpy() / 255.0 - np.array(mean)) / np.array(std)
    normalised = Normalise(mean, std)(rgb)
    assert normalised.shape == (2, 3, 8, 9)
    np.testing.assert_allclose(normalised.permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)


def test_constants_of_the_normalisation_are_no_weights() -> None:
    normalise = Normalise((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert list(normalise.state_dict()) == list(normalise.parameters()) == []
    # Black and white, by hand: (0 - 0.5) / 0.25 and (1 - 0.5) / 0.25.
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2, 1).expand(1, 1, 2, 3)
    np.testing.assert_allclose(normalise(black_and_white)[0, :, 0].numpy(), [[-2, 2]] * 3, atol=1e-6)


def test_a_student_needs_a_forward() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Student()  # pyright: ignore[reportAbstractUsage]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(1, 64, 64, 3), r"torch\.float32 of shape \(1, 64, 64, 3\), but uint8 \[B, H, W, 3\]"),
        (torch.zeros(64, 64, 3, dtype=torch.uint8), r"torch\.uint8 of shape \(64, 64, 3\)"),
    ],
)
def test_what_is_no_batch_is_refused(batch: torch.Tensor, message: str) -> None:
    with pytest.raises(PocketiqaError, match=f"a batch is {message}"):
        check_batch(batch)
    check_batch(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))


def test_frozen_parts_get_no_gradient_and_the_others_do() -> None:
    student = tiny_student().train()
    freeze_parts(student, ["backbone.blocks.0", "neck"])
    batch = torch.from_numpy(np.stack([image[:96, :128] for image in photographs()]))
    student(batch).score.sum().backward()
    for name, parameter in student.named_parameters():
        frozen = name.startswith(("backbone.blocks.0.", "neck."))
        assert parameter.requires_grad is not frozen, name
        assert (parameter.grad is None) is frozen, name


def test_frozen_names_are_whole_names_of_parts() -> None:
    student = tiny_student()
    with pytest.raises(PocketiqaError, match=r"^freeze names 'backbone\.block', but .* parts are backbone, "):
        freeze_parts(student, ["backbone.block"])
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_images_of_one_size_go_through_the_network_together() -> None:
    student, sizes = tiny_student(), list[tuple[int, ...]]()
    student.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[:3])))
    tall, wide = np.zeros((96, 64, 3), np.uint8), np.zeros((64, 96, 3), np.uint8)
    outputs = score_images(student, [tall, wide, tall, tall], batch_size=2)
    assert sorted(sizes) == [(1, 64, 96), (1, 96, 64), (2, 96, 64)]
    assert [type(output) for output in outputs] == [StudentOutput] * 4
    assert outputs[0].features.shape[0] == TINY.head_width


def test_images_of_mixed_sizes_keep_their_order(student: Student) -> None:
    images = [*photographs(), photographs()[0][:100, :70], *photographs()[::-1]]
    outputs = score_images(student, images, batch_size=2)
    for image, output in zip(images, outputs, strict=True):
        with torch.inference_mode():
            alone = student(torch.from_numpy(Preprocess(128).resize(image))[None])
        assert output.score.shape == ()
        assert output.quality_map.shape == alone.quality_map.shape[1:]
        torch.testing.assert_close(output.score, alone.score[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(output.features, alone.features[0], rtol=0, atol=1e-4)


def test_scoring_uses_evaluation_mode_and_restores_the_mode() -> None:
    student = tiny_student()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    expected = score_images(student, photographs())[0].score
    student.train()
    assert torch.equal(score_images(student, photographs())[0].score, expected)
    assert student.training
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_wrong_input_is_named(student: Student) -> None:
    assert score_images(student, []) == []
    with pytest.raises(PocketiqaError, match="float64 of shape"):
        score_images(student, [np.zeros((64, 64, 3))])
    with pytest.raises(PocketiqaError, match=r"a batch is torch.float32 of shape \(1, 3, 64, 64\)"):
        student(torch.zeros(1, 3, 64, 64))
    with pytest.raises(PocketiqaError, match="batch_size is 0"):
        score_images(student, photographs(), batch_size=0)
