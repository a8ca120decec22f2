"""The big teachers that the benches measure, with random weights, and what their models cost by count."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from teachers.dp_iqa import DpIqaTeacher, build_dp_iqa
from teachers.dp_iqa.model import meta_model
from teachers.dp_iqa.prompts import PROMPTS
from teachers.dp_iqa.variants import VARIANTS
from teachers.sam_iqa import SamIqa, SamIqaConfig, SamIqaTeacher, build_sam_iqa
from teachers.sam_iqa.variants import meta_vit, variant_named

BigTeacher = DpIqaTeacher | SamIqaTeacher

# Part -> the name that torch's counter knows it by.
_DP_IQA_PARTS = {
    "autoencoder's encoder": "DpIqa.vae.encoder",
    "U-Net": "DpIqa.unet",
    "decoder": "DpIqa.decoder",
    "image adapter": "DpIqa.image_adapter",
    "text adapter": "DpIqa.text_adapter",
}
_SAM_IQA_PARTS = {"encoder": "SamEncoder", "branches": "SpatialFrequency", "regression": "RegressionBlock"}


@dataclass(frozen=True)
class Case:
    """A teacher in one size.

    Attributes:
        teacher: ``dp_iqa`` or ``sam_iqa``.
        variant: of it.
        side_px: of its square input.
        goal_part: what ``goal_fraction`` is about, a part of ``Cost.macs``.
        goal_share: of a GPU's matrix rate that is asked of it.
    """

    teacher: str
    variant: str
    side_px: int
    goal_part: str
    goal_fraction: float

    @property
    def name(self) -> str:
        """For people, and the key of its seconds."""
        return f"{self.teacher}-{self.variant}-{self.side_px}"

    def build(self, precision: str) -> BigTeacher:
        """The teacher on the CPU, as its users build it."""
        words: dict[str, Any] = {"variant": self.variant, "input_side_px": self.side_px, "precision": precision}
        if self.teacher == "sam_iqa":
            return build_sam_iqa(pretrained=False, **words)
        return build_dp_iqa(pretrained=False, channels_last=precision != "fp32", **words)


def _dp_iqa(variant: str, side_px: int) -> Case:
    return Case("dp_iqa", variant, side_px, "whole", 0.30)


def _sam_iqa(variant: str, side_px: int) -> Case:
    return Case("sam_iqa", variant, side_px, "encoder", 0.40)


FULL = (_dp_iqa("sd15", 512), _sam_iqa("vit_b", 1024), _sam_iqa("vit_b", 512))
TINY = (_dp_iqa("tiny", 64), _sam_iqa("tiny", 128))


@dataclass(frozen=True)
class Cost:
    """What follows from the shapes alone.

    Attributes:
        parameters: of the whole model.
        trained: those that fitting changes by default.
        macs: multiply-accumulates of convolutions, matrix products and attention for one batch: ``whole``, each part,
            and ``others``. Element-wise work and Fourier transforms are not counted.
        features: shape of each feature of one image.
    """

    parameters: int
    trained: int
    macs: dict[str, int]
    features: dict[str, tuple[int, ...]]


def count(case: Case, batch: int = 1) -> Cost:
    """Count without computing anything: all tensors are on torch's ``meta`` device.

    Attention is there computed by plain matrix products, which are counted as the fused kernels of real devices are.
    """
    counter = FlopCounterMode(display=False)
    with torch.inference_mode():
        if case.teacher == "sam_iqa":
            model, features = _meta_sam_iqa(case, batch, counter)
        else:
            model, features = _meta_dp_iqa(case, batch, counter)
    # The counter's unit is the floating-point operation: two for each multiply-accumulate.
    macs = {name: sum(measured.values()) // 2 for name, measured in counter.get_flop_counts().items()}
    names = _SAM_IQA_PARTS if case.teacher == "sam_iqa" else _DP_IQA_PARTS
    parts = {part: macs[name] for part, name in names.items()}
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return Cost(
        sum(size for size, _ in sizes),
        sum(size for size, trained in sizes if trained),
        {"whole": macs["Global"], **parts, "others": macs["Global"] - sum(parts.values())},
        {name: tuple(value.shape[1:]) for name, value in features.items()},
    )


def _meta_dp_iqa(case: Case, batch: int, counter: FlopCounterMode) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    prompts = torch.empty(len(PROMPTS), VARIANTS[case.variant].text_width, device="meta")
    model = meta_model(case.variant, prompts=prompts).eval()
    images = torch.empty(batch, 3, case.side_px, case.side_px, device="meta")
    with counter:
        return model, {"feature_map": model(images).feature_map}


def _meta_sam_iqa(case: Case, batch: int, counter: FlopCounterMode) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    vit = meta_vit(variant_named(case.variant))
    with torch.device("meta"):
        model = SamIqa(SamIqaConfig(case.variant, input_side_px=case.side_px), vit).eval()
    images = torch.empty(batch, 3, case.side_px, case.side_px, device="meta", dtype=torch.uint8)
    # Step by step, because the whole switches autocast off, which this device does not have.
    with counter:
        quality = model.regression(model.branches(*model.encoder(images)))
    return model, {"map": quality.map, "pooled": quality.pooled}
