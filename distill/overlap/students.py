"""Features of students: of a folder by torch, of an exported file by ONNX Runtime.

``backbone`` is the mean of the deepest map of the backbone, which knows most of what an image shows; ``map`` that of
the fused map from which the score is made, which knows most of its quality.
"""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from distill.overlap.describer import Describer, chosen
from pseudo_labels.errors import PocketiqaError
from students.base import Student
from students.model import PocketStudent
from students.session import INPUT, open_model, read_model
from students.storage import open_student

DEEPEST, FUSED = "backbone", "map"
# What feeds the neck's last reduction is the deepest map, what feeds the heads the fused one.
_REDUCTION, _HEADS = re.compile(r"/neck/reduce\.(\d+)/.*Conv$"), re.compile(r"/heads/Conv$")
_QUIET = 3


def student_describer(path: Path, feature: str | None) -> Describer:
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
    return Describer(opened.name, "student", name, identity, lambda rgb, _: _student_vector(student, rgb, name))


@torch.inference_mode()
def _student_vector(student: Student, rgb: np.ndarray, feature: str) -> np.ndarray:
    batch = torch.from_numpy(student.config.preprocess.resize(rgb))[None]
    if feature == DEEPEST and isinstance(student, PocketStudent):
        feature_map = student.backbone(student.normalise(batch))[-1]
    else:
        feature_map = student(batch).features
    return feature_map.float().mean((2, 3))[0].numpy()


def exported_describer(path: Path, feature: str | None) -> Describer:
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

    return Describer(opened.contract.name, "onnx", name, {"digest": opened.digest, "feature": name}, describe)


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
