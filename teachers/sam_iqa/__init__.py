"""SAM-IQA: quality from the image encoder of the Segment Anything Model, in the spatial and the frequency domain.

Source: Li et al. 2023, "SAM-IQA: Can Segment Anything Boost Image Quality Assessment?", arXiv 2307.04455. No code was
released. From the paper: SAM's encoder extracts features; standard convolutions and Fourier convolutions are applied to
them; a regression block gives the score; in the full-reference form, it gets the L1 differences of the two images'
spatial and frequency features instead.

Our own choices, where the paper leaves something open:

* **Taps**: the outputs of the last three global-attention blocks, each reduced by a 1x1 convolution to 256 channels;
  SAM's neck is added to the last one.
* **Branches**, per tap: a 3x3 convolution, and the Fourier unit of Chi et al. 2020, each with group normalisation and a
  residual.
* **Regression block**: 1x1 convolutions to 64 channels (the map that is returned as a feature), mean and deviation over
  the image, two linear layers, sigmoid.
* **Input**: the whole image, resized to a square by Pillow's antialiased bicubic filter, without keeping the aspect
  ratio. Resizing is itself a distortion (shrinking hides noise and slight blur), so there is exactly one, none for an
  image of the input's size, and large photographs are better scored as crops. SAM itself pads the shorter side, which
  keeps the aspect ratio. We do not: the edge of the padding would show in every frequency of the Fourier branch, the
  padding would change the pooled statistics and cost time, and maps would not align with the student's.
* **Smaller inputs** (512): the absolute position embedding is interpolated. The relative ones of the global blocks are
  stretched by segment-anything itself.
* **Attention** is computed by torch's fused kernel: equal values in less time and memory.

The encoder is frozen unless ``trainable`` is ``neck`` or ``all``.
"""

from teachers.sam_iqa.build import build_sam_iqa
from teachers.sam_iqa.model import Quality, SamIqa, SamIqaConfig, fourier_convolution
from teachers.sam_iqa.teacher import SamIqaTeacher

__all__ = ["Quality", "SamIqa", "SamIqaConfig", "SamIqaTeacher", "build_sam_iqa", "fourier_convolution"]
