"""Features of any timm backbone, with weights from a file or from timm."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import timm
import torch
from torch import Tensor

from distill.leakage.extractor import BACKBONE, FeatureExtractor, chosen
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import sha256_file
from students.base import Student
from students.model import PocketStudent
from students.session import INPUT, open_model, read_model
from students.storage import open_student
from teachers.base import check_output
from teachers.launch import current_launch
from teachers.qfm_iqm.backbone import Backbone, create_timm, known_depths, load_local
from teachers.qfm_iqm.tokens import frame
from teachers.registry import build_teacher

DEEPEST, FUSED = "backbone", "map"
# What feeds the neck's last reduction is the deepest map, what feeds the heads the fused one.
_REDUCTION, _HEADS = re.compile(r"/neck/reduce\.(\d+)/.*Conv$"), re.compile(r"/heads/Conv$")
_QUIET = 3


def student_extractor(path: Path, feature: str | None) -> FeatureExtractor:
    """A student or training folder, or a checkpoint that ``students.storage`` knows.

    Raises:
        PocketiqaError: it cannot be opened, or has no such feature.
    """
    opened = open_student(path)
    student = opened.student.eval()
    # The student of DP-IQA's authors is built otherwise.
    known = (DEEPEST, FUSED) if isinstance(student, PocketStudent) else (FUSED,)
    name = chosen(feature, known, opened.name)
    identity = {"digest": opened.digest, "feature": name}
    return FeatureExtractor(opened.name, "student", name, identity, lambda rgb, _: _student_vector(student, rgb, name))


@torch.inference_mode()
def _student_vector(student: Student, rgb: np.ndarray, feature: str) -> np.ndarray:
    batch = torch.from_numpy(student.config.preprocess.resize(rgb))[None]
    if feature == DEEPEST and isinstance(student, PocketStudent):
        feature_map = student.backbone(student.normalise(batch))[-1]
    else:
        feature_map = student(batch).features
    return feature_map.float().mean((2, 3))[0].numpy()


def exported_extractor(path: Path, feature: str | None) -> FeatureExtractor:
    """An exported student, whose inner maps are made outputs; the file itself stays as it is.

    Raises:
        PocketiqaError: it cannot be opened, shows no inner maps, or has no such feature.
    """
    opened = open_model(path)
    model = onnx.load_from_string(read_model(path))
    maps = _inner_maps(model.graph)
    name = chosen(feature, tuple(maps), str(path))
    session = _session(model, maps[name], str(path))
    preprocess = opened.contract.preprocess

    def describe(rgb: np.ndarray, _: np.ndarray | None) -> np.ndarray:
        (found,) = session.run([maps[name]], {INPUT: preprocess.resize(rgb)[None]})
        return np.asarray(found, np.float32).mean((2, 3))[0]

    return FeatureExtractor(opened.contract.name, "onnx", name, {"digest": opened.digest, "feature": name}, describe)


def _inner_maps(graph: onnx.GraphProto) -> dict[str, str]:
    """Feature to the name of its tensor, as far as the graph's own names tell; the deepest first."""
    found: dict[str, str] = {}
    reductions = {int(match[1]): node for node in graph.node if (match := _REDUCTION.search(node.name))}
    if reductions:
        found[DEEPEST] = reductions[max(reductions)].input[0]
    heads = [node for node in graph.node if _HEADS.search(node.name)]
    if heads:
        found[FUSED] = heads[0].input[0]
    return found


def _session(model: onnx.ModelProto, tensor: str, name: str) -> onnxruntime.InferenceSession:
    """A session that gives this tensor alone, so that what lies behind it is not computed."""
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    options.enable_mem_pattern = False  # plans are kept for every size of photograph
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        reason = " ".join(str(error).split())[:160]
        raise PocketiqaError(
            f"the inner maps of {name} cannot be had ({reason}): name the student's training folder instead"
        ) from error


def teacher_extractor(name: str, options: Mapping[str, Any], feature: str | None, device: str) -> FeatureExtractor:
    """A teacher by its name, or a fitted one by its folder.

    Raises:
        PocketiqaError: it cannot be built, or has no such feature.
    """
    teacher = build_teacher(name, **options)
    wanted = chosen(feature, tuple(teacher.feature_names), name)
    teacher.to(current_launch(device).device)

    @torch.inference_mode()
    def describe(rgb: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
        output = teacher([teacher.preprocess(rgb, reference)])
        return pooled(check_output(output, 1, (wanted,), name).features[wanted])

    identity = {"stamp": teacher.stamp.digest, "feature": wanted}
    return FeatureExtractor(teacher.stamp.name, "teacher", wanted, identity, describe, teacher.needs_reference)


def pooled(features: Tensor) -> np.ndarray:
    """What a teacher says of one image as a vector: maps [1, C, h, w] and tokens [1, T, C] averaged over their places.

    A map of one channel is laid out flat: its mean would say nothing of what an image shows.

    Returns:
        float32 [D].
    """
    found = features.detach().float().cpu()
    if found.ndim == 4 and found.shape[1] > 1:
        found = found.mean((2, 3))
    elif found.ndim == 3:
        found = found.mean(1)
    return found.flatten().numpy()


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


def backbone_extractor(options: Mapping[str, Any], feature: str | None, device: str) -> FeatureExtractor:
    """A timm model; its features are the means of its maps over the image.

    Args:
        options: of ``BackboneOptions``.
        feature: name of a depth, see ``teachers.qfm_iqm.backbone.known_depths``; None for the deepest.
        device: as for ``open_extractor``.

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
    return FeatureExtractor(wanted.name, BACKBONE, depth, {**identity, "feature": depth}, describe)


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
