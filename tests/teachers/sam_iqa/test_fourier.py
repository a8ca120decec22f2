import numpy as np
import pytest
import torch
from torch import Tensor, nn

from teachers.sam_iqa.branches import FourierUnit
from teachers.sam_iqa.fourier import fourier_convolution

SIZES = [(6, 8), (5, 7), (7, 4), (4, 7), (1, 9), (9, 1), (1, 1), (2, 2)]


def circular_convolution(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """From its definition, without a transform: y[i, j] = sum_uv kernel[u, v] x[i - u, j - v], indices modulo size."""
    y = np.zeros_like(x)
    for u, v in np.ndindex(*kernel.shape[-2:]):
        y += kernel[..., u, v, None, None] * np.roll(x, (u, v), axis=(-2, -1))
    return y


def multiply_by(response: np.ndarray):
    """A mix that multiplies the half spectrum, [C, H, W // 2 + 1], by complex constants."""

    def mix(stacked: Tensor) -> Tensor:
        real, imaginary = stacked.chunk(2, dim=1)
        product = torch.complex(real, imaginary) * torch.from_numpy(response)
        return torch.cat((product.real, product.imag), dim=1)

    return mix


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_equals_a_circular_convolution_over_the_whole_image(height: int, width: int):
    rng = np.random.default_rng(height * 10 + width)
    x, kernel = rng.normal(size=(2, 3, height, width)), rng.normal(size=(3, height, width))
    result = fourier_convolution(torch.from_numpy(x), multiply_by(np.fft.rfft2(kernel)))
    np.testing.assert_allclose(result.numpy(), circular_convolution(x, kernel), atol=1e-12)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_equal_weights_for_real_and_imaginary_parts_are_a_pointwise_convolution(height: int, width: int):
    rng = np.random.default_rng(1)
    x, matrix = rng.normal(size=(2, 3, height, width)), rng.normal(size=(4, 3))
    mix = nn.Conv2d(6, 8, 1, bias=False, dtype=torch.float64)
    block = np.block([[matrix, np.zeros((4, 3))], [np.zeros((4, 3)), matrix]])
    mix.weight.data = torch.from_numpy(block)[..., None, None]
    result = fourier_convolution(torch.from_numpy(x), mix).detach()
    np.testing.assert_allclose(result.numpy(), np.einsum("oc,bchw->bohw", matrix, x), atol=1e-12)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_spectrum_of_no_real_image_is_inverted_as_numpy_does(height: int, width: int):
    rng = np.random.default_rng(2)
    shape = (1, 2, height, width // 2 + 1)
    spectrum = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    stacked = torch.from_numpy(np.concatenate((spectrum.real, spectrum.imag), axis=1))
    result = fourier_convolution(torch.zeros(1, 2, height, width, dtype=torch.float64), lambda _: stacked)
    np.testing.assert_allclose(result.numpy(), np.fft.irfft2(spectrum, (height, width), norm="ortho"), atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (3, 5), (1, 2)])
def test_gradients_of_input_and_weights(height: int, width: int):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 2, height, width, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(4, 4, 1, 1, dtype=torch.float64, generator=generator, requires_grad=True)

    def convolve(x: Tensor, weight: Tensor) -> Tensor:
        return fourier_convolution(x, lambda stacked: torch.tanh(nn.functional.conv2d(stacked, weight)))

    assert torch.autograd.gradcheck(convolve, (x, weight))


def test_half_precision_is_computed_in_single():
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4)).bfloat16()
    result = fourier_convolution(x, lambda stacked: 2 * stacked)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result, 2 * x, atol=0, rtol=2**-8)


def test_the_unit_adds_its_spectral_part_to_the_input():
    """With weights that are a complex multiplication, and neither normalisation nor activation, the unit is linear and
    commutes with circular shifts, as a convolution must; a zero weight leaves the input.
    """
    unit, convolution = FourierUnit(16), nn.Conv2d(32, 32, 1, bias=False)
    unit.mix = nn.Sequential(convolution)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, 16, 6, 9, generator=generator)
    real, imaginary = torch.randn(2, 16, 16, generator=generator)
    rows = torch.cat((real, -imaginary), dim=1), torch.cat((imaginary, real), dim=1)
    with torch.no_grad():
        convolution.weight.copy_(torch.cat(rows)[..., None, None])
        torch.testing.assert_close(unit(x.roll((2, 4), (2, 3))), unit(x).roll((2, 4), (2, 3)), atol=1e-4, rtol=0)
        assert not torch.allclose(unit(x), x)
        convolution.weight.zero_()
        assert torch.equal(unit(x), x)
