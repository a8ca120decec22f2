"""The student that DP-IQA's authors published: EfficientNet-B7, to be exported and compared with ours.

Fu et al. 2024, arXiv 2405.19996: features of EfficientNet-B7 (2560 channels, stride 32), a transposed 3x3 convolution
of stride 2 to 8 channels, ReLU, nearest neighbours to 64x64, which imitates the teacher's feature map, and linear
layers as in the teacher. Input 512x512 in [0, 1]; 81,012,185 parameters, 27 GMACs.

Ours, because it is not known: the transposed convolution doubles each side exactly (padding 1, output padding 1), so
that each cell is repeated equally often in the 64x64 map; and the square is made in two steps, the resize of every
student to at most 512 pixels, its aspect kept, then a bilinear stretch of the shorter side inside the model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import efficientnet_b7

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.tensor_files import misfits, read_tensors, tensors_only
from students.base import Normalise, Student, StudentOutput, check_batch
from students.config import DP_IQA_B7, StudentConfig, dp_iqa_b7_config

OFFICIAL: dict[str, Any] = {
    "name": DP_IQA_B7,
    "scale": "MOS / 100 of the set that this checkpoint of DP-IQA's authors was fitted to",
    "weights": {
        "name": "EfficientNet-B7 student published by DP-IQA's authors (Fu et al. 2024, arXiv 2405.19996)",
        "licence": "CC BY-NC-SA 4.0 (not for commercial use)",
    },
}
"""Facts on the authors' weights, stored with each student that is made from them (``about``)."""

_FEATURES = 2560
# Side of the feature map behind the upsampling: as large as the teacher's.
_MAP_SIDE = 64
_HIDDEN = 512
_COUNTER = ".num_batches_tracked"


class DpIqaB7(Student):
    """The published student, its parts under the authors' names.

    It has no local scores: the quality map is one cell that holds the score. Its input may have any size up to
    ``config.preprocess.max_side`` and is stretched to a square of that side. ``new_student`` builds one from a seed,
    ``load_official_student`` from the authors' checkpoint.

    Args:
        config: made by ``dp_iqa_b7_config``.
    """

    def __init__(self, config: StudentConfig):
        super().__init__()
        self.config = config
        self.normalise = _unit_range()
        self.base_model = nn.ModuleDict({"features": efficientnet_b7(weights=None).features})
        width = config.head_width
        self.conv_transpose = nn.ConvTranspose2d(_FEATURES, width, 3, stride=2, padding=1, output_padding=1)
        self.fc1 = nn.Linear(width * _MAP_SIDE**2, _HIDDEN)
        self.fc2 = nn.Linear(_HIDDEN, _HIDDEN)
        self.fc3 = nn.Linear(_HIDDEN, 1)
        nn.init.constant_(self.fc3.bias, 0.5)  # a new student scores about 0.5, as ours do

    def forward(self, rgb: Tensor) -> StudentOutput:
        """Score a batch of images of one size.

        Args:
            rgb: uint8 [B, H, W, 3].

        Raises:
            PocketiqaError: another type or number of dimensions.
        """
        check_batch(rgb)
        side = self.config.preprocess.max_side
        square = functional.interpolate(self.normalise(rgb), size=(side, side), mode="bilinear", align_corners=False)
        small = functional.relu(self.conv_transpose(self.base_model["features"](square)))
        # float32 also under autocast: the loss of features compares it with the teacher's map.
        features = functional.interpolate(small, size=(_MAP_SIDE, _MAP_SIDE), mode="nearest").float()
        hidden = functional.relu(self.fc2(functional.relu(self.fc1(features.flatten(1)))))
        score = self.fc3(hidden).float()
        # Not in training: a clamped score has no gradient, so a score outside [0, 1] would never come back.
        if not self.training:
            score = score.clamp(0, 1)
        quality = score[:, :, None]
        return StudentOutput(score[:, 0], quality, torch.ones_like(quality), features)


def load_official_student(checkpoint: str | Path | Mapping[str, Tensor], *, max_side: int = 512) -> DpIqaB7:
    """Load the authors' checkpoint, strictly.

    Args:
        checkpoint: a ``.pth`` or safetensors file, or its state dict.
        max_side: side of the square input in pixels; it was trained on 512.

    Returns:
        The student in evaluation mode, float32.

    Raises:
        PocketiqaError: the file is missing, corrupt or holds more than tensors; a tensor is missing, unknown or of
            another shape.
    """
    is_file = isinstance(checkpoint, str | Path)
    where = str(checkpoint) if is_file else "the state dict"
    content = read_tensors(Path(checkpoint)) if is_file else tensors_only(checkpoint, where)
    # The prefix that DataParallel writes.
    given = {name.removeprefix("module."): tensor for name, tensor in content.items()}
    # Without memory for random weights, which the file's replace.
    with torch.device("meta"):
        student = DpIqaB7(dp_iqa_b7_config(max_side))
    student.normalise = _unit_range()  # its constants are in no state dict, so they would stay on "meta"
    own = student.state_dict()
    # Files may lack batch normalisation's counter, which only training with momentum None reads.
    given |= {name: torch.tensor(0) for name in own if name.endswith(_COUNTER) and name not in given}
    mismatch = misfits(own, given)
    if mismatch:
        raise PocketiqaError(
            f"{where} is not the student of DP-IQA's authors: {mismatch}; give their EfficientNet-B7 checkpoint, and a "
            "student of pocketiqa as its folder"
        )
    # ``assign``: tensors on "meta" have no memory to copy into.
    student.load_state_dict({name: value.to(own[name].dtype) for name, value in given.items()}, assign=True)
    return student.eval()


def _unit_range() -> Normalise:
    return Normalise((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
