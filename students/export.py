"""A student -> one sealed ONNX file with its contract inside, or a refusal where ONNX Runtime and torch disagree."""

import copy
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import write_atomic
from students.calibration import Calibration
from students.complexity import measure_complexity
from students.contract import CONTRACT_KEY, StudentContract
from students.half import halve_weights
from students.model import PocketStudent
from students.parity import Parity, compare, parity_cases
from students.sealed import check_seal, seal
from students.session import INPUT, OUTPUTS, start_session

OPSET = 17
MAX_DIFFERENCE = 1e-4
"""Largest accepted absolute difference of score, quality map and weight map; the scores span 0 to 1."""
MAX_HALF_DIFFERENCE = 1e-2
"""The same where the weights were rounded to float16, after the graph with the unrounded ones kept ``MAX_DIFFERENCE``.

Rounding errs by up to 1/2048 of each weight, and the errors of some fifty layers add up. Measured on the bundled
photographs with pocket-m and pocket-s trained on BIQ2021: scores moved by up to 0.001, cells of the maps by 0.004.
"""

_TRACED_SIZE = (96, 64)
_HALF_ADVICE = "its weights do not bear rounding to float16: export it without --half"


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: of the ONNX file.
        size_bytes: of it.
        digest: hex SHA-256 from its seal.
        contract: as stored inside.
        parity: as measured.
    """

    path: Path
    size_bytes: int
    digest: str
    contract: StudentContract
    parity: Parity


def draft_contract(
    student: PocketStudent,
    *,
    name: str,
    scale: str,
    calibration: Calibration | None = None,
    teachers: Sequence[Mapping[str, Any]] = (),
    data: Sequence[Mapping[str, Any]] = (),
    metrics: Mapping[str, Any] | None = None,
) -> StudentContract:
    """The contract of a student before its export: what only the student knows is filled in here.

    Args:
        student: to be exported.
        name: such as ``pocket-m``.
        scale: whose scale the scores are on.
        calibration: raw score -> score.
        teachers: ``TeacherStamp.as_dict()`` of each.
        data: what it was trained on, each with ``name``, ``digest`` and ``licence``.
        metrics: results of the evaluation, JSON values.
    """
    complexity = measure_complexity(student)
    return StudentContract(
        name=name,
        student=student.config.as_dict(),
        preprocess=student.config.preprocess,
        scale=scale,
        parameters=complexity.parameters,
        macs=complexity.macs,
        code_version=_code_version(),
        calibration=calibration,
        teachers=tuple(dict(stamp) for stamp in teachers),
        data=tuple(dict(entry) for entry in data),
        metrics=dict(metrics or {}),
    )


def _code_version() -> str:
    try:
        return version("pocketiqa")
    except PackageNotFoundError:
        return "unknown"


def export_onnx(
    student: PocketStudent,
    contract: StudentContract,
    out: str | Path,
    *,
    images: Sequence[np.ndarray],
    max_difference: float = MAX_DIFFERENCE,
    half: bool = False,
) -> ExportReport:
    """Write a student as ONNX; nothing is written unless ONNX Runtime repeats torch's outputs.

    The file maps ``rgb`` (uint8 [N, H, W, 3], any size from 64 pixels) to ``score`` [N], ``quality_map`` and
    ``weight_map`` [N, h, w], all raw: calibration and resize are the runtime's, as the contract says.

    Args:
        student: on any device, in any mode; it is left as it is.
        contract: see ``draft_contract``; its parity is measured here.
        out: the file; an earlier one is replaced in one step.
        images: real photographs, uint8 HxWx3, at least one; compared as a whole, and in parts of odd sizes.
        max_difference: see ``MAX_DIFFERENCE``.
        half: store weights in float16, see ``students.half``; then ``MAX_HALF_DIFFERENCE`` must be kept as well.

    Raises:
        PocketiqaError: no images, a contract of another student, or the outputs differ too much.
    """
    if contract.student != student.config.as_dict() or contract.preprocess != student.config.preprocess:
        raise PocketiqaError(f"the contract describes a {contract.backbone} that is not this student: draft it anew")
    frozen = copy.deepcopy(student).to("cpu", torch.float32).eval()
    graph, cases = _trace(frozen), parity_cases(student, images)
    parity = compare(frozen, graph.SerializeToString(), cases, max_difference)
    if half:
        graph = halve_weights(graph)
        parity = compare(frozen, graph.SerializeToString(), cases, MAX_HALF_DIFFERENCE, advice=_HALF_ADVICE)
    contract = replace(contract, parity=asdict(parity))
    data = seal(_with_contract(graph, contract).SerializeToString())
    digest = check_seal(data, str(out))
    # The bytes that will be written, metadata and seal included, must be what the runtime accepts.
    start_session(data, 1, str(out))
    write_atomic(Path(out), data)
    return ExportReport(Path(out), len(data), digest, contract, parity)


class _Outputs(nn.Module):
    def __init__(self, student: PocketStudent):
        super().__init__()
        self.student = student

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = self.student(rgb)
        return output.score, output.quality_map, output.weight_map


def _trace(student: PocketStudent) -> onnx.ModelProto:
    """The graph with normalisation inside, batch normalisation folded, batch and size free.

    torch's older exporter: it takes a second, and "same" padding makes the newer one run for minutes.
    """
    maps = {0: "batch", 1: "map_height", 2: "map_width"}
    axes = {INPUT: {0: "batch", 1: "height", 2: "width"}, OUTPUTS[0]: {0: "batch"}, OUTPUTS[1]: maps, OUTPUTS[2]: maps}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        # It announces its deprecation, and that traced constants are constants.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Outputs(student).eval(),
            (torch.zeros(1, *_TRACED_SIZE, 3, dtype=torch.uint8),),
            f"{folder}/student.onnx",
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
        return onnx.load(f"{folder}/student.onnx")


def _with_contract(graph: onnx.ModelProto, contract: StudentContract) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    model.producer_name, model.producer_version = "pocketiqa", contract.code_version
    onnx.helper.set_model_props(model, {CONTRACT_KEY: contract.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model
