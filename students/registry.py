"""Students by name: three presets of ours, a published student, or one around any timm backbone."""

from dataclasses import replace
from pathlib import Path

import torch

from pseudo_labels.errors import PocketiqaError
from students.backbone import check_name, load_backbone_weights
from students.base import Student
from students.config import DP_IQA_B7, StudentConfig, dp_iqa_b7_config
from students.model import EXPORTED, PocketStudent, load_exported_weights
from students.preprocess import Preprocess

# Sizes of the input chosen so that, from JPEG to score, over OpenCV's BRISQUE on 512x512 pixels in one run, a student
# takes at most 0.9 (pocket-s), 1.3 (pocket-m) and 6 times as long (pocket-l), also where the processor has no AVX-512:
# there a network takes three times as long as with it, BRISQUE not twice. pocket-m ends behind blocks.5: blocks.6 has a
# fifth of the parameters, and most of the time that its stride adds.
_LITE0 = "tf_efficientnet_lite0"
POCKET_PRESETS: dict[str, StudentConfig] = {
    "pocket-s": StudentConfig(_LITE0, (8, 16), head_width=48, preprocess=Preprocess(max_side=240)),
    "pocket-m": StudentConfig(
        _LITE0, (8, 16, 32), head_width=64, preprocess=Preprocess(max_side=256), last_stage="blocks.5"
    ),
    "pocket-l": StudentConfig(_LITE0, (8, 16, 32), head_width=128, preprocess=Preprocess(max_side=512)),
}
PRESETS: dict[str, StudentConfig] = {**POCKET_PRESETS, DP_IQA_B7: dp_iqa_b7_config()}
"""All presets: ours, and the published student to compare them with (``students.dp_iqa_b7``)."""

# Trained values that each pocket preset may have at most; the published student is as large as it is.
PARAMETER_LIMITS = {"pocket-s": 1_000_000, "pocket-m": 3_000_000, "pocket-l": 6_000_000}
DEFAULT_PRESET = "pocket-m"


def student_config(name: str) -> StudentConfig:
    """The configuration of a preset, or the default one around a timm backbone.

    Raises:
        PocketiqaError: neither has the name; the message gives the most similar ones.
    """
    if name in PRESETS:
        return PRESETS[name]
    try:
        check_name(name)
    except PocketiqaError as error:
        raise PocketiqaError(f"{error} (or take a preset: {', '.join(PRESETS)})") from error
    return StudentConfig(name)


def build_student(
    student: str | StudentConfig = DEFAULT_PRESET,
    *,
    init: str | Path | None = None,
    pretrained: bool = False,
    max_side: int | None = None,
    seed: int = 0,
) -> Student:
    """Build a student; equal arguments give equal weights.

    Args:
        student: preset, timm backbone or configuration.
        init: safetensors file with weights of the backbone under timm's key names, or an exported student (``.onnx``)
            of the same architecture, which gives all weights; not for ``DP_IQA_B7``.
        pretrained: fetch the backbone's weights from timm's hub, which needs a network; not for ``DP_IQA_B7``.
        max_side: replaces ``preprocess.max_side`` of the configuration, in pixels.
        seed: seed of the random weights.

    Raises:
        PocketiqaError: an unknown name, an unfit backbone, or weights that do not fit it.
    """
    config = student_config(student) if isinstance(student, str) else student
    if max_side is not None:
        config = replace(config, preprocess=replace(config.preprocess, max_side=max_side))
    # Before the model is built, which takes seconds, or fetches weights.
    check_start(config, init=init, pretrained=pretrained)
    built = new_student(config, seed=seed, pretrained=pretrained)
    if init is not None and isinstance(built, PocketStudent):  # check_start refused it for the others
        if Path(init).suffix == EXPORTED:
            load_exported_weights(built, Path(init))
        else:
            load_backbone_weights(built.backbone, Path(init))
    return built


def check_start(config: StudentConfig, *, init: str | Path | None = None, pretrained: bool = False) -> None:
    """Refuse initial weights that a student cannot have.

    Args:
        config: configuration of the student.
        init: file with weights of the backbone.
        pretrained: whether timm's weights are wanted.

    Raises:
        PocketiqaError: both are given, or either for ``DP_IQA_B7``.
    """
    if init is not None and pretrained:
        raise PocketiqaError(f"init is {str(init)!r} and pretrained is True: only one can say where weights come from")
    if config.backbone == DP_IQA_B7 and (init is not None or pretrained):
        given = "pretrained is True" if init is None else f"init is {str(init)!r}"
        raise PocketiqaError(
            f"{given}, but {DP_IQA_B7} has no backbone of timm's: leave it out and start from random weights; its "
            "authors' checkpoint is read by students.dp_iqa_b7.load_official_student"
        )


def new_student(config: StudentConfig, *, seed: int = 0, pretrained: bool = False) -> Student:
    """Build a student from its own seed: equal arguments give equal weights, torch's global generators are untouched.

    Raises:
        PocketiqaError: see ``PocketStudent`` and ``check_start``.
    """
    check_start(config, pretrained=pretrained)
    # Weights are made on the CPU. The caller's generator is put back, so building a student changes no later draw. Not
    # torch.manual_seed, which would seed those of all GPUs as well.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if config.backbone == DP_IQA_B7:
            # Imported only where such a student is built: few ever are.
            from students.dp_iqa_b7 import DpIqaB7

            return DpIqaB7(config)
        return PocketStudent(config, pretrained=pretrained)
