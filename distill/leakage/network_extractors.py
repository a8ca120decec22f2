"""Feature extractors that run a network: students, exported students, teachers, and any timm backbone."""

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
# Names of nodes in an exported graph. The input of the neck's last reduction is the deepest map, that of the heads the
# fused one.
_REDUCTION, _HEADS = re.compile(r"/neck/reduce\.(\d+)/.*Conv$"), re.compile(r"/heads/Conv$")
_ERRORS_ONLY = 3  # severity level of ONNX Runtime's log


def student_extractor(path: Path, feature: str | None) -> FeatureExtractor:
    """Features of a student or training folder, or of a checkpoint that ``students.storage`` can open.

    Raises:
        PocketiqaError: it cannot be opened, or has no such feature.
    """
    opened = open_student(path)
    student = opened.student.eval()
    # The student of DP-IQA's authors has another architecture: only its fused map is offered.
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
    """Features of an exported student: an inner map becomes the output of a copy in memory.

    Raises:
        PocketiqaError: it cannot be opened, its graph names no inner maps, or it has no such feature.
    """
    opened = open_model(path)
    model = onnx.load_from_string(read_model(path))
    maps = _inner_maps(model.graph)
    name = chosen(feature, tuple(maps), str(path))
    session = _session(model, maps[name], str(path))
    preprocess = opened.contract.preprocess

    def extract(rgb: np.ndarray, _: np.ndarray | None) -> np.ndarray:
        (feature_map,) = session.run([maps[name]], {INPUT: preprocess.resize(rgb)[None]})
        return np.asarray(feature_map, np.float32).mean((2, 3))[0]

    return FeatureExtractor(opened.contract.name, "onnx", name, {"digest": opened.digest, "feature": name}, extract)


def _inner_maps(graph: onnx.GraphProto) -> dict[str, str]:
    """Tensor name by feature, as far as the node names of the graph show it; the deepest first."""
    tensor_of: dict[str, str] = {}
    reductions = {int(match[1]): node for node in graph.node if (match := _REDUCTION.search(node.name))}
    # The neck reduces the levels from fine to coarse, so the highest number belongs to the deepest map.
    if reductions:
        tensor_of[DEEPEST] = reductions[max(reductions)].input[0]
    heads = [node for node in graph.node if _HEADS.search(node.name)]
    if heads:
        tensor_of[FUSED] = heads[0].input[0]
    return tensor_of


def _session(model: onnx.ModelProto, tensor: str, name: str) -> onnxruntime.InferenceSession:
    """A session whose only output is this tensor, so that no later node is computed."""
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.enable_mem_pattern = False  # a memory plan would be cached for every image size
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no public base class
        reason = " ".join(str(error).split())[:160]
        raise PocketiqaError(
            f"the inner maps of {name} cannot be computed ({reason}): name the student's training folder instead"
        ) from error


def teacher_extractor(name: str, options: Mapping[str, Any], feature: str | None, device: str) -> FeatureExtractor:
    """Features of a teacher by its name, or of a fitted one by its folder.

    Raises:
        PocketiqaError: it cannot be built, or has no such feature.
    """
    teacher = build_teacher(name, **options)
    wanted = chosen(feature, tuple(teacher.feature_names), name)
    teacher.to(current_launch(device).device)

    @torch.inference_mode()
    def extract(rgb: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
        output = teacher([teacher.preprocess(rgb, reference)])
        return pooled(check_output(output, 1, (wanted,), name).features[wanted])

    identity = {"stamp": teacher.stamp.digest, "feature": wanted}
    return FeatureExtractor(
        name=teacher.stamp.name,
        kind="teacher",
        feature=wanted,
        identity=identity,
        extract=extract,
        needs_reference=teacher.needs_reference,
    )


def pooled(features: Tensor) -> np.ndarray:
    """A teacher's features of one image as a vector: maps [1, C, h, w] and tokens [1, T, C] averaged over positions.

    A map of one channel is flattened instead: its mean would not depend on what the image shows.

    Returns:
        float32 [D].
    """
    vector = features.detach().float().cpu()
    if vector.ndim == 4 and vector.shape[1] > 1:
        vector = vector.mean((2, 3))
    elif vector.ndim == 3:
        vector = vector.mean(1)
    return vector.flatten().numpy()


@dataclass(frozen=True)
class BackboneOptions:
    """Options of ``--by backbone``; exactly one of ``weights`` and ``pretrained`` must be given.

    Attributes:
        name: timm's name of the model.
        weights: path of a safetensors file in timm's key names.
        pretrained: whether to use timm's weights, which are fetched unless they are in its cache.
        pad_type: padding of convolutions; ``same`` for weights that come from TensorFlow.
        mean: mean of RGB in [0, 1], one number or three; timm's value if None.
        std: standard deviation of RGB in [0, 1], one number or three; timm's value if None.
        max_side_px: longer side in pixels to which larger images are downscaled.
    """

    name: str
    weights: str | None = None
    pretrained: bool = False
    pad_type: str = ""
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    max_side_px: int = 224


def backbone_extractor(options: Mapping[str, Any], feature: str | None, device: str) -> FeatureExtractor:
    """Features of a timm model: means of its maps over the image.

    Args:
        options: values of ``BackboneOptions`` by name.
        feature: name of a depth, see ``teachers.qfm_iqm.backbone.known_depths``; None for the deepest.
        device: as for ``open_extractor``.

    Raises:
        PocketiqaError: an option is missing or unknown, the weights cannot be loaded, or there is no such depth.
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
    def extract(rgb: np.ndarray, _: np.ndarray | None) -> np.ndarray:
        item = frame(
            rgb,
            max_side_px=wanted.max_side_px,
            multiple_px=backbone.multiple_px,
            smallest_px=backbone.smallest_px,
            fixed_px=backbone.fixed_px,
        )
        return backbone(item[None].to(backbone.mean.device))[0].mean((2, 3))[0].cpu().numpy()

    # A file is identified by its content, not its path: moved weights do not invalidate cached features.
    weights = sha256_file(Path(wanted.weights).expanduser()) if wanted.weights else "timm"
    # The version of timm is included because it builds the network: features of another version are computed again.
    identity = {**asdict(replace(wanted, weights=weights, mean=mean, std=std)), "timm": timm.__version__}
    return FeatureExtractor(wanted.name, BACKBONE, depth, {**identity, "feature": depth}, extract)


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
            _colour(colour)  # a wrong colour is refused before weights are fetched
    if not isinstance(wanted.max_side_px, int) or wanted.max_side_px < 1:
        raise PocketiqaError(f"max_side_px is {wanted.max_side_px!r}: give a number of pixels, such as 224")
    return wanted


def _colour(value: float | Sequence[float]) -> tuple[float, ...]:
    """Three numbers; a single one applies to all channels."""
    try:
        return (float(value),) * 3 if isinstance(value, int | float) else tuple(float(one) for one in value)
    except (TypeError, ValueError) as error:
        raise PocketiqaError(f"mean or std is {value!r}: give one number or three, such as [0.5, 0.5, 0.5]") from error
