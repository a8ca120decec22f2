"""DP-IQA: quality from the prior of Stable Diffusion's U-Net (Fu et al. 2024, arXiv 2405.19996).

The image's latents go through the U-Net once, without noise, at timestep 1, conditioned on 1485 sentences about
scene, distortion and quality; the outputs of its up blocks are decoded into a feature map and a score. Written from
the paper and from the names and shapes in the published files; the authors' code (CC BY-NC-SA) was not used.

Our own choices, where the paper leaves something open or ours is better:

* **Posterior**: its mode by default. The authors sample, which makes scores random; ``posterior: sample`` does so with
  one noise for all images, and with new noise for each image during fitting.
* **Resize**: Pillow's antialiased bicubic filter to a square, without keeping the aspect ratio; the authors' filter is
  not known.
* **Score**: clamped to [0, 1] by the teacher, not by the network.
* **Other Stable Diffusion checkpoints**: any of the 1.x and 2.x kind, sizes read from its folder; where the context is
  wider than the prompt features, the text adapter ends in a linear map.
* **Prompts**: their keys and values are projected once per batch, not once per image.
* **Unused layers**: those after the last tap, and the autoencoder's decoder, stay in the model, so that parameter
  counts and checkpoints agree. They are not trained, and no part of a fitted teacher's file or of its stamp.

``load_official`` reads the authors' checkpoint. The steps of the forward pass, ``DpIqa.encode``, ``DpIqa.taps`` and
``DpIqa.decoder``, can be called alone.
"""

from teachers.dp_iqa.base_weights import Official, load_official
from teachers.dp_iqa.build import build_dp_iqa
from teachers.dp_iqa.decoder import Quality
from teachers.dp_iqa.model import Conditioning, DpIqa
from teachers.dp_iqa.prompts import PROMPTS, PromptBank, load_bank, prompt_bank
from teachers.dp_iqa.teacher import DpIqaTeacher

__all__ = [
    "PROMPTS",
    "Conditioning",
    "DpIqa",
    "DpIqaTeacher",
    "Official",
    "PromptBank",
    "Quality",
    "build_dp_iqa",
    "load_bank",
    "load_official",
    "prompt_bank",
]
