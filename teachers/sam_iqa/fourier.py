"""Convolution in the frequency domain: every output value sees the whole image at the cost of a 1x1 convolution.

After the Fourier unit of fast Fourier convolution: Chi, Jiang, Mu, "Fast Fourier Convolution", NeurIPS 2020, section 3.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def fourier_convolution(x: Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
    """Real FFT over height and width, ``mix`` on the half spectrum, inverse FFT; all orthonormal.

    By the convolution theorem, a ``mix`` that multiplies each channel's spectrum by constants is a circular convolution
    over the whole image. What ``mix`` returns need not be the spectrum of a real image: the inverse over the height is
    a complex transform, and the one over the width ignores the imaginary parts of its zero and Nyquist frequencies. (A
    joint two-dimensional inverse leaves that case to the library underneath, so that devices could differ.)

    Args:
        x: [B, C, H, W], any size from 1x1. Half precision is computed in float32: FFTs know no bfloat16.
        mix: [B, 2C, H, W // 2 + 1] to [B, 2D, H, W // 2 + 1]; the first half of the channels are real parts, the
            second imaginary parts. Frequencies along the height are in FFT order.

    Returns:
        [B, D, H, W], of the type of ``x``.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    spectrum = torch.fft.rfft2(wide, norm="ortho")
    mixed = mix(torch.cat((spectrum.real, spectrum.imag), dim=1)).to(wide.dtype)
    columns = torch.fft.ifft(torch.complex(*mixed.chunk(2, dim=1)), dim=-2, norm="ortho")
    return torch.fft.irfft(columns, n=x.shape[-1], dim=-1, norm="ortho").to(x.dtype)
