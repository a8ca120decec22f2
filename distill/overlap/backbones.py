"""Features of any timm backbone, with weights from a file or from timm."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from distill.overlap.describer import BACKBONE, Describer, chosen
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import sha256_file
from teachers.launch import current_launch
from teachers.qfm_iqm.backbone import Backbone, create_timm, known_depths, load_local
from teachers.qfm_iqm.tokens import frame


@dataclass(frozen=True)
class BackboneOptions:
    """What ``--option`` may say of a backbone.

    Attributes:
        name: timm's.
        weights: safetensors file under timm's key names.
        pretrained: timm's weights, fetched unless they are in its cache; one of the two must be given.
        pad_type: of convolutions; ``same`` for weights that come from TensorFlow.
        mean: of RGB in [0, 1], one number or three; what timm states if None.
        std: likewise.
        max_side_px: larger images are shrunk until the longer side has as many pixels.
    """

    name: str
    weights: str | None = None
    pretrained: bool = False
    pad_type: str = ""
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    max_side_px: int = 224


def backbone_describer(options: Mapping[str, Any], feature: str | None, device: str) -> Describer:
    """A timm model; its features are the means of its maps over the image.

    Args:
        options: of ``BackboneOptions``.
        feature: name of a depth, see ``teachers.qfm_iqm.backbone.known_depths``; None for the deepest.
        device: as for ``open_describer``.

    Raises:
        PocketiqaError: an option is missing or unknown, the weights cannot be had, or there is no such depth.
    """
    wanted = _checked(options)
    network = create_timm(wanted.name, pad_type=wanted.pad_type, pretrained=wanted.pretrained)
    if wanted.weights is not None:
        load_local(network, Path(wanted.weights).expanduser())
    depth = chosen(feature, known_depths(network)[::-1], wanted.name)
    stated: Any = timm.get_pretrained_cfg(wanted.name)
    mean = _colour(stated.mean if wanted.mean is None else wanted.mean)
    std = _colour(stated.std if wanted.std is None else wanted.std)
    backbone = Backbone(network, mean, std, (depth,)).eval().to(current_launch(device).device)

    @torch.inference_mode()
    def describe(rgb: np.ndarray, _: np.ndarray | None) -> np.ndarray:
        item = frame(
            rgb,
            max_side_px=wanted.max_side_px,
            multiple_px=backbone.multiple_px,
            smallest_px=backbone.smallest_px,
            fixed_px=backbone.fixed_px,
        )
        return backbone(item[None].to(backbone.mean.device))[0].mean((2, 3))[0].cpu().numpy()

    # A file is known by what it holds, not by where it lies.
    weights = sha256_file(Path(wanted.weights).expanduser()) if wanted.weights else "timm"
    identity = {**asdict(replace(wanted, weights=weights, mean=mean, std=std)), "timm": timm.__version__}
    return Describer(wanted.name, BACKBONE, depth, {**identity, "feature": depth}, describe)


def _checked(options: Mapping[str, Any]) -> BackboneOptions:
    known = [field.name for field in fields(BackboneOptions)]
    unknown = [option for option in options if option not in known]
    if unknown or "name" not in options:
        fault = f"has no option {unknown[0]!r}" if unknown else "lacks --option name=TIMM_MODEL"
        raise PocketiqaError(f"--by backbone {fault}: its options are {', '.join(known)}")
    wanted = BackboneOptions(**options)
    if (wanted.weights is None) is not wanted.pretrained:
        raise PocketiqaError(
            f"--by backbone has weights={wanted.weights} and pretrained={wanted.pretrained}: give weights=FILE "
            "(safetensors in timm's key names), or pretrained=true for timm's, which may be fetched"
        )
    for colour in (wanted.mean, wanted.std):
        if colour is not None:
            _colour(colour)  # said before weights are fetched
    if not isinstance(wanted.max_side_px, int) or wanted.max_side_px < 1:
        raise PocketiqaError(f"max_side_px is {wanted.max_side_px!r}: give a number of pixels, such as 224")
    return wanted


def _colour(value: float | Sequence[float]) -> tuple[float, ...]:
    """Three numbers; one alone stands for all channels."""
    try:
        return (float(value),) * 3 if isinstance(value, int | float) else tuple(float(one) for one in value)
    except (TypeError, ValueError) as error:
        raise PocketiqaError(f"mean or std is {value!r}: give one number or three, such as [0.5, 0.5, 0.5]") from error
