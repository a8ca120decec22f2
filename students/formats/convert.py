"""A float student -> the same in 8 bits, sealed as an ONNX file with its contract; refused unless its scores follow."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.outputs import NewFile, write_file
from pseudo_labels.parallel import Progress
from students.contract import StudentContract
from students.formats.agreement import (
    Agreement,
    EightBitLimits,
    RatedAgreement,
    Run,
    check_eight_bits,
    damaged,
    inputs_of_several_sizes,
    measure_agreement,
    measure_rated,
)
from students.formats.bias import start_unchecked
from students.formats.halves import widened
from students.formats.int8 import quantise
from students.formats.photographs import Photographs, RatedPhotographs, evenly
from students.formats.registry import format_named
from students.formats.sealing import seal, unsealed
from students.formats.weights8 import store_in_eight_bits
from students.session import INPUT, OUTPUTS, read_model

INT8, W8 = "onnx-int8", "onnx-w8"
_ADVICE = {
    INT8: "calibrate on photographs more like those it scores (--calibrate), or take onnx-w8, which errs less",
    W8: "its weights do not bear 8 bits: keep it in float, or in half the size with --half",
}
# Inputs and photographs.
_MOST_CALIBRATED, _LEAST_CALIBRATED = 64, 8


@dataclass(frozen=True)
class FloatStudent:
    """An exported student in float32, opened.

    Attributes:
        graph: its graph, without contract and checksum.
        contract: its contract.
        digest: hex SHA-256 of the model.
    """

    graph: onnx.ModelProto
    contract: StudentContract
    digest: str


@dataclass(frozen=True)
class ConversionReport:
    """A written conversion.

    Attributes:
        path: path of the file.
        size_bytes: its size in bytes.
        source_bytes: size of the float graph in bytes, without contract and checksum.
        digest: hex SHA-256 of the model, the checksum in the file.
        contract: contract stored in it.
        agreement: how its scores follow those of the float student.
        rated: what that costs by ratings of people; None if no rated photographs were given.
    """

    path: Path
    size_bytes: int
    source_bytes: int
    digest: str
    contract: StudentContract
    agreement: Agreement
    rated: RatedAgreement | None


def open_float(data: bytes, name: str) -> FloatStudent:
    """Open the bytes of an exported student.

    Args:
        data: content of the file.
        name: name of the file in an error.

    Raises:
        PocketiqaError: it is no student (``IntegrityError``: altered), or computes in 8 bits. One whose weights alone
            are stored in 8 bits computes in float, and its weights are floats again here.
    """
    graph, contract, digest = unsealed(data, name)
    if contract.conversion is not None and contract.conversion.get("format") != W8:
        raise PocketiqaError(
            f"{name} is {contract.conversion.get('format')!r} already, without what a conversion starts from: give the "
            "float student"
        )
    return FloatStudent(widened(graph), contract, digest)


def read_float(path: str | Path) -> FloatStudent:
    """``open_float`` of a file.

    Raises:
        PocketiqaError: see there; or it cannot be read.
    """
    return open_float(read_model(path), str(path))


def convert(
    student: FloatStudent,
    kind: str,
    out: NewFile | str | Path,
    *,
    calibration: Photographs,
    compared: Photographs,
    rated: RatedPhotographs | None = None,
    limits: EightBitLimits | None = None,
    progress: Progress | None = None,
) -> ConversionReport:
    """Write a student in 8 bits; nothing is written unless its scores follow those of the float student.

    Args:
        student: the float student.
        kind: ``INT8`` or ``W8``.
        out: path of the file, of which an earlier one is replaced in one step, or a file that was claimed.
        calibration: what ranges and means are measured on (``INT8``); never photographs of a test part.
        compared: photographs that scores are compared on, in several sizes and damaged.
        rated: photographs on which the rank correlation with people must stay; read once.
        limits: other limits than those of ``EightBitLimits``.
        progress: called with (done, total) images of the calibration.

    Raises:
        PocketiqaError: too few photographs, or a limit is not kept.
    """
    if student.contract.conversion is not None and kind == W8:
        raise PocketiqaError(f"{student.contract.name} is stored in 8 bits already: take it as it is")
    graph = _converted(student, kind, calibration, progress)
    other, source = run_unchecked(graph), run_unchecked(student.graph)
    preprocess = student.contract.preprocess
    inputs = inputs_of_several_sizes(compared.resized(preprocess, least=1), preprocess)
    agreement = measure_agreement(source, other, inputs, student.contract.calibration)
    by_people = None
    if rated is not None:
        by_people = measure_rated(
            source, other, rated.inputs(preprocess), name=rated.name, calibration=student.contract.calibration
        )
    check_eight_bits(agreement, by_people, limits or EightBitLimits(), _ADVICE[kind])
    contract = replace(
        student.contract,
        name=f"{student.contract.name}{format_named(kind).ending}",
        conversion=_record(student, kind, calibration, agreement, by_people),
    )
    path = Path(out.path or "") if isinstance(out, NewFile) else Path(out)
    data, digest = seal(graph, contract, str(path))
    write_file(out, data)
    return ConversionReport(
        path, len(data), student.graph.ByteSize(), digest, contract, agreement=agreement, rated=by_people
    )


def _converted(
    student: FloatStudent, kind: str, calibration: Photographs, progress: Progress | None
) -> onnx.ModelProto:
    if kind == W8:
        return store_in_eight_bits(student.graph)
    images = calibration.resized(student.contract.preprocess, least=_LEAST_CALIBRATED)
    # Damaged ones too: noise reaches values that no clean photograph does.
    inputs = [image[None] for image in damaged(images)]
    return quantise(student.graph, evenly(inputs, _MOST_CALIBRATED), progress)


def _record(
    student: FloatStudent,
    kind: str,
    calibration: Photographs,
    agreement: Agreement,
    rated: RatedAgreement | None,
) -> dict[str, Any]:
    """What the contract states of the conversion; times are no part of it, as each machine has its own."""
    return {
        "format": kind,
        "source": student.digest,
        "calibration": {"name": calibration.name, "photographs": len(calibration.paths)} if kind == INT8 else None,
        "agreement": agreement.as_dict(),
        "rated": None if rated is None else rated.as_dict(),
        "versions": {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
    }


def run_unchecked(model: onnx.ModelProto) -> Run:
    """A graph in ONNX Runtime, as ``bias.start_unchecked`` starts it."""
    session = start_unchecked(model)
    return lambda batch: [np.asarray(value) for value in session.run(list(OUTPUTS), {INPUT: batch})]
