"""QFM-IQM: quality from a backbone's features, fitted to ignore what images show.

Source: Li et al., "Adaptive Feature Selection for No-Reference Image Quality Assessment by Mitigating Semantic Noise
Sensitivity", ICML 2024, arXiv 2312.06158. From the paper: images with similar features can have different quality,
because a backbone trained for recognition computes much that quality does not depend on. During fitting, a memory of
features and scores is searched for images of similar score and different semantics; their difference is added to the
features as noise at the decoder's input, and the loss keeps the score from changing. Scoring uses the features without
noise. The first version (December 2023) matched similar semantics with different scores instead, in a contrastive
loss: ``matching="opposite"``.

Our own choices, where the paper leaves something open:

* **Backbone**: any timm model, read at several depths, at full size and at half of it (``halvings``): on BIQ2021 the
  statistics of two sizes predict MOS better than those of one.
* **Tokens**: each depth's map, averaged over cells and projected to one width; and one token for mean and deviation of
  its channels over the whole image.
* **Decoder**: a gate for each channel (the learned feature selection), one transformer decoder layer with one quality
  query, and a short path from the whole image's tokens to the score. The score is linear in the output of both, and
  only the teacher clamps it.
* **Semantics** are the means of the deepest map, standardised by those in the memory.
* **Noise** is a fraction of the difference between the features of the match and the image's own, constant over the
  cells; of several matches, the one is used that moves the score most. Its loss is smooth L1 between the scores with
  and without noise.
* **Contrast** (the first version): the more the scores of two images differ, the less similar their features may be.
* **Input**: the whole image with its aspect ratio, shrunk if it is larger than ``max_side_px`` and never enlarged,
  except for backbones of one fixed size and with ``square_px``.

The backbone is frozen unless ``trainable`` names parts of it, and its batch norms always keep their statistics.
"""

from teachers.qfm_iqm.build import build_qfm_iqm
from teachers.qfm_iqm.model import QfmConfig, QfmIqm
from teachers.qfm_iqm.noise import NoiseSettings
from teachers.qfm_iqm.sensitivity import Sensitivity, noise_sensitivity, sensitivity_among
from teachers.qfm_iqm.teacher import QfmIqmTeacher
from teachers.qfm_iqm.tokens import GateReport

__all__ = [
    "GateReport",
    "NoiseSettings",
    "QfmConfig",
    "QfmIqm",
    "QfmIqmTeacher",
    "Sensitivity",
    "build_qfm_iqm",
    "noise_sensitivity",
    "sensitivity_among",
]
