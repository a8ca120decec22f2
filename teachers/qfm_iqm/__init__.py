"""QFM-IQM: quality from a backbone's features, taught to ignore what images show.

Source: Li et al., "Adaptive Feature Selection for No-Reference Image Quality Assessment by Mitigating Semantic Noise
Sensitivity", ICML 2024, arXiv 2312.06158. From the paper: images near in feature space can be far in quality, because
features of a backbone trained to recognise things carry much that quality does not depend on. While fitting, a memory
of features and scores is searched for images of similar score and different semantics; what they differ in is added
to the features as noise at the decoder's input, and the score shall stay. Judging uses the features as they are. The
first version (December 2023) matched similar semantics with different scores instead, contrastively:
``matching="opposite"``.

Ours, because the paper leaves it open:

* **Backbone**: any timm model, read at several depths, at full size and at half of it (``halvings``): on BIQ2021 the
  statistics of two sizes say more than those of one.
* **Tokens**: each depth's map, averaged to a grid and projected to one width; and one token for mean and deviation of
  its channels over the whole image.
* **Decoder**: a gate for each channel (the learned feature selection), one transformer decoder layer with one quality
  query, and a short way from the whole image's tokens to the score, which is linear in both and clamped only where
  it leaves the teacher.
* **Semantics** are compared at the deepest map's means, standardised by those in the memory.
* **Noise** is a share of the difference between the features of the match and the image's own, constant over the
  cells; of several matches, the one counts that moves the score most. Its loss is smooth L1 between the scores with
  and without noise.
* **Contrast** (the first version): features of a match may be as alike as its score is near.
* **Input**: the whole image, its aspect kept, shrunk where it is larger than ``max_side_px`` and never enlarged, except
  for backbones of one fixed size.

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
