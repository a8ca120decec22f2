import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from pseudo_labels.images import ImageError
from pseudo_labels.records import Status
from teachers.qfm_iqm.tokens import (
    ChannelGate,
    Tokeniser,
    cell_means,
    cut_to_multiple,
    fitted_size,
    frame,
    mean_and_deviation,
    report_gate,
    summary,
)
from tests.teachers.qfm_iqm.tiny_qfm import batch, picture, tiny


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (5, 3), (17, 31), (1, 2)])
def test_cells_are_those_of_adaptive_pooling(size: tuple[int, int]):
    features = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cell_means(features, 8), functional.adaptive_avg_pool2d(features, 8))


def test_mean_and_deviation_are_those_of_the_channels():
    features = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    mean, deviation = mean_and_deviation(features).unbind(1)
    values = features[1, 2].double().numpy()
    assert float(mean[1, 2]) == pytest.approx(values.mean(), abs=1e-6)
    assert float(deviation[1, 2]) == pytest.approx(values.std(), abs=1e-6)


def test_a_constant_channel_has_a_finite_slope():
    features = torch.ones(1, 2, 3, 3, requires_grad=True)
    mean_and_deviation(features)[:, 1].sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_a_cells_token_sees_its_cell_only_and_the_whole_sees_all():
    tokeniser = Tokeniser([4], 1, 6, cells=2)
    features = torch.rand(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    changed = features.clone()
    changed[:, :, :3, 3:] += torch.rand(1, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokens, new = (tokeniser(summary([maps], 2)) for maps in (features, changed))
    assert (tokens.cells != new.cells).any(3).tolist() == [[[False, True, False, False]]]
    assert (tokens.whole != new.whole).all()


def test_the_summary_holds_level_by_level_the_cells_and_the_whole():
    maps = [torch.rand(2, channels, 6, 6, generator=torch.Generator().manual_seed(channels)) for channels in (3, 5)]
    summed = summary(maps, 2)
    assert summed.shape == (2, (3 + 5) * (4 + 2))
    torch.testing.assert_close(summed[:, :12].reshape(2, 3, 2, 2), functional.adaptive_avg_pool2d(maps[0], 2))
    torch.testing.assert_close(summed[:, 12:15], maps[0].mean((2, 3)))
    torch.testing.assert_close(summed[:, -5:], maps[1].std((2, 3), correction=0))
    semantics = Tokeniser([3, 5], 2, 4, cells=2)(summed).semantics
    torch.testing.assert_close(semantics, maps[1].mean((2, 3)))


def test_the_features_are_the_cells_mean_and_the_whole():
    teacher = tiny(halvings=1)
    with torch.no_grad():
        tokens = teacher.model.encode(batch(teacher, [picture(0), picture(1)]))
    assert tokens.cells.shape == (2, 12, 9, 16)
    assert tokens.features.shape == (2, 2, 12, 16)
    torch.testing.assert_close(tokens.features[:, 0], tokens.cells.mean(2))
    torch.testing.assert_close(tokens.features[:, 1], tokens.whole)


def test_gate_factors_are_in_0_to_1_and_close_channels():
    gate = ChannelGate(4)
    assert report_gate(gate.factors).suppressed == 0
    with torch.no_grad():
        gate.shift.copy_(torch.tensor([-9.0, -1 / 25, 0.0, 9.0]))  # logits -449, -1, 1, 451
    assert gate.factors.min() >= 0
    assert gate.factors.max() <= 1
    selected = gate(torch.ones(3, 5, 4))
    assert selected.shape == (3, 5, 4)
    assert not selected[..., 0].any()
    assert (selected[..., 3] == 1).all()
    report = report_gate(gate.factors)
    assert report.suppressed == 0.5
    assert report.mean == pytest.approx(0.5)
    assert (report.least, report.most) == (0.0, 1.0)


def test_a_closed_channel_does_not_reach_the_score():
    teacher = tiny()
    with torch.no_grad():
        teacher.model.decoder.gate.shift[:8] = -9.0
        tokens = teacher.model.encode(batch(teacher, [picture(0)]))
        noise = torch.zeros_like(tokens.features)
        noise[..., :8] = 1.0
        disturbed = tokens.with_noise(noise)
        plain, noisy = teacher.model.decode(tokens), teacher.model.decode(disturbed)
        assert torch.equal(plain.score, noisy.score)
        assert not plain.map[:, :8].any()
        assert plain.map[:, 8:].any()
        bare = [teacher.model.decode(one, gated=False).score for one in (tokens, disturbed)]
        assert not torch.equal(bare[0], bare[1])


ANY_SIZE = {"multiple_px": 1, "smallest_px": 32, "fixed_px": None}


@pytest.mark.parametrize(
    ("size", "expected"),
    [((512, 512), (512, 512)), ((300, 200), (300, 200)), ((1024, 768), (512, 384)), ((500, 4000), (64, 512)),
     ((1, 9000), (1, 512))],
)  # fmt: skip
def test_large_images_shrink_with_their_aspect_and_others_stay(size: tuple[int, int], expected: tuple[int, int]):
    assert fitted_size(*size, 512) == expected


def test_an_image_that_fits_keeps_its_pixels():
    image = picture(0, 70, 90)
    framed = frame(image, max_side_px=90, **ANY_SIZE)
    np.testing.assert_array_equal(framed.numpy(), image.transpose(2, 0, 1))


def test_a_larger_one_is_resized_once():
    image = picture(0, 120, 160)
    framed = frame(image, max_side_px=80, **ANY_SIZE)
    expected = np.asarray(Image.fromarray(image).resize((80, 60), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(framed.numpy(), expected.transpose(2, 0, 1))


def test_the_sides_are_cut_to_the_largest_multiple_around_the_middle():
    image = picture(0, 70, 97)
    framed = frame(image, max_side_px=512, multiple_px=16, smallest_px=32, fixed_px=None)
    np.testing.assert_array_equal(framed.numpy(), image[3:67, :96].transpose(2, 0, 1))
    assert cut_to_multiple(image, 1) is not None
    np.testing.assert_array_equal(cut_to_multiple(image, 1), image)


def test_a_backbone_of_one_size_gets_that_size():
    framed = frame(picture(0, 64, 200), max_side_px=80, multiple_px=16, smallest_px=32, fixed_px=(160, 160))
    assert framed.shape == (3, 160, 160)


def test_an_image_too_small_is_refused_with_its_size():
    assert frame(picture(0, 32, 90), max_side_px=512, **ANY_SIZE).shape == (3, 32, 90)
    for image in (picture(0, 31, 90), picture(0, 50, 1000)):
        with pytest.raises(ImageError, match=rf"{image.shape[1]}x{image.shape[0]} pixels: .* 32 are needed") as caught:
            frame(image, max_side_px=512, **ANY_SIZE)
        assert caught.value.status == Status.TOO_SMALL
