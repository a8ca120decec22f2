"""A student in a format beyond ONNX: a folder with the model's files and ``contract.json``, measured as it is written.

The contract says what a program must do that runs it (resize, type and layout of the input, names of the outputs), and
how closely its scores follow those of the ONNX file (``conversion``). The folder's manifest holds the digests of all
files, which ``Package`` verifies.
"""

import json
import math
import os
import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.files import sha256_bytes, write_atomic
from pseudo_labels.images import DEFAULT_LIMITS, decode
from pseudo_labels.outputs import Claim, Manifest, claim, exclusively, finish, read_manifest, start_over
from pseudo_labels.remote import location
from students.contract import StudentContract
from students.formats import core_ml_form, executorch_form, litert_form, ncnn_form, openvino_form
from students.formats.agreement import (
    Agreement,
    check_float,
    inputs_of_several_sizes,
    measure_agreement,
    measure_rounding,
)
from students.formats.convert import FloatStudent, run_unchecked
from students.formats.form import ANY_SIZE, Form, Settings, usual_sizes
from students.formats.photographs import Photographs, evenly
from students.formats.registry import check_installed, format_named
from students.preprocess import Preprocess

KIND = "exported student"
"""Kind of the manifest of such a folder."""
CONTRACT = "contract.json"
FORMS: MappingProxyType[str, Form] = MappingProxyType(
    {
        "openvino": openvino_form.FORM,
        "ncnn": ncnn_form.FORM,
        "coreml": core_ml_form.FORM,
        "executorch": executorch_form.FORM,
        "litert": litert_form.FORM,
    }
)


@dataclass(frozen=True)
class PackageReport:
    """A written folder.

    Attributes:
        path: the folder.
        kind: its format.
        size_bytes: size of the model's files in bytes.
        contract: contract that lies beside them.
        agreement: how its scores follow those of the float student in ONNX Runtime.
        is_new: whether it was written now; else the same was there already.
    """

    path: Path
    kind: str
    size_bytes: int
    contract: StudentContract
    agreement: Agreement
    is_new: bool


class Package:
    """A folder that ``write_package`` wrote, in its own runtime; Core ML's program is evaluated (``core_ml_program``).

    Attributes:
        kind: its format.
        contract: its contract.
    """

    def __init__(self, folder: str | Path):
        """Verify the files and open the model.

        Raises:
            PocketiqaError: it is no such folder, or the packages of its format are missing.
            IntegrityError: a file was altered.
        """
        folder = Path(folder)
        manifest, self.contract = _read(folder)
        self.kind = str(manifest.spec["format"])
        check_installed(self.kind)
        self._run = FORMS[self.kind].start(folder)

    def infer(self, batch: np.ndarray) -> list[np.ndarray]:
        """Score an image that was resized as the contract says.

        Args:
            batch: uint8 [1, H, W, 3].

        Returns:
            float32 score [1], quality map and weight map [1, h, w], calibrated.
        """
        score, quality, weight = self._run(batch)[:3]
        score = np.clip(score, 0.0, 1.0)
        calibration = self.contract.calibration
        return [score, quality, weight] if calibration is None else [calibration(score), calibration(quality), weight]

    def score(self, data: bytes) -> float:
        """Score the content of an image file, as ``Scorer.score`` does (quick look).

        Raises:
            ImageError: it cannot be used.
        """
        preprocess = self.contract.preprocess
        return float(self.infer(preprocess.resize(decode(data, DEFAULT_LIMITS, resizer=preprocess))[None])[0][0])


def _read(folder: Path) -> tuple[Manifest, StudentContract]:
    manifest = read_manifest(folder, KIND)
    if not manifest.complete:
        raise PocketiqaError(f"{folder} is not finished: export the student again")
    for name, digest in manifest.content["files"].items():
        if not (folder / name).is_file() or sha256_bytes((folder / name).read_bytes()) != digest:
            raise IntegrityError(f"{folder / name} was altered or is missing: export the student again")
    return manifest, StudentContract.from_json((folder / CONTRACT).read_bytes().decode())


def package_preprocess(student: FloatStudent, kind: str) -> Preprocess:
    """The resize of a student in a format: its own, with the multiples or the few sizes that the format needs."""
    rounded = replace(student.contract.preprocess, multiple=FORMS[kind].multiple(student))
    return replace(rounded, sizes=usual_sizes(rounded)) if FORMS[kind].fixed_sizes else rounded


def write_package(
    student: FloatStudent,
    kind: str,
    out: Path,
    *,
    compared: Photographs,
    half: bool = False,
    environment: Path | None = None,
    overwrite: bool = False,
) -> PackageReport:
    """Write a student in a format; nothing is left there unless its scores are those of the ONNX file.

    Args:
        student: the float student.
        kind: a key of ``FORMS``.
        out: folder to write, or its address; where the same export is already, nothing is done.
        compared: photographs that scores are compared on, in several sizes and damaged.
        half: weights in float16, and arithmetic where the format computes so.
        environment: folder of the converter's environment, for a format that has one; None is the usual folder.
        overwrite: replace an earlier, other export there.

    Raises:
        PocketiqaError: scores differ, or the format's converter does not take the student.
        OutputConflictError: ``out`` holds something else.
    """
    out = location(out)
    spec = {
        "format": kind,
        "source": student.digest,
        "half": half,
        "compared": compared.name,
        "versions": _versions(kind),
    }
    with exclusively(out):
        is_new = claim(out, KIND, spec, overwrite=overwrite) is not Claim.DONE
        if is_new:
            try:
                finish(out, {"files": _written(student, kind, out, compared, Settings(half, environment))})
            except Exception:
                start_over(out)
                raise
        manifest, contract = _read(out)
        size = sum((out / name).stat().st_size for name in manifest.content["files"] if name != CONTRACT)
    agreement = Agreement.from_dict((contract.conversion or {})["agreement"])
    return PackageReport(out, kind, size, contract, agreement=agreement, is_new=is_new)


def without_unfit_heads(contract: StudentContract, kind: str) -> StudentContract:
    """The contract without heads that read more numbers of the embedding than a format gives.

    Args:
        contract: of the float student.
        kind: a key of ``FORMS``.
    """
    numbers = math.inf if FORMS[kind].whole_embedding else contract.student["head_width"]
    pairs, types = (
        head if head is not None and len(head.mean) <= numbers else None for head in (contract.pairs, contract.types)
    )
    return replace(contract, pairs=pairs, types=types)


def _versions(kind: str) -> dict[str, str]:
    return {**{name: version(name) for name in FORMS[kind].distributions}, **FORMS[kind].pinned()}


def _written(student: FloatStudent, kind: str, out: Path, compared: Photographs, settings: Settings) -> dict[str, str]:
    """Write and compare; digests of all files by their names."""
    form, preprocess = FORMS[kind], package_preprocess(student, kind)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        form.write(student, preprocess, settings, folder)
        contract = replace(
            without_unfit_heads(student.contract, kind),
            preprocess=preprocess,
            conversion=_measured(student, kind, folder, compared, half=settings.half),
        )
        names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        for name in names:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(out / name, (folder / name).read_bytes())
    write_atomic(out / CONTRACT, (json.dumps(contract.as_dict(), indent=1, sort_keys=True) + "\n").encode())
    return {os.fspath(name): sha256_bytes((out / name).read_bytes()) for name in [*names, Path(CONTRACT)]}


def _measured(student: FloatStudent, kind: str, folder: Path, compared: Photographs, *, half: bool) -> dict[str, Any]:
    """What the contract says of the conversion; refused where scores differ."""
    form, preprocess = FORMS[kind], package_preprocess(student, kind)
    run, source, own = form.start(folder), run_unchecked(student.graph), student.contract
    compared = replace(compared, paths=evenly(compared.paths, form.most_compared))
    inputs = inputs_of_several_sizes(compared.resized(preprocess, least=1), preprocess)
    agreement = measure_agreement(source, run, inputs, own.calibration)
    check_float(agreement, format_named(kind).engine, half=half)
    rounding = None
    if preprocess.multiple != ANY_SIZE:
        rounding = measure_rounding(source, compared, own.preprocess, preprocess, own.calibration)
    signatures = [f"{height}x{width}" for height, width in preprocess.sizes]
    return {
        "format": kind,
        "source": student.digest,
        "half": half,
        "input": {"type": form.kind, "layout": form.layout, "colours": "RGB", "values": [0, 255]},
        **({"signatures": signatures} if signatures else {}),
        "outputs": list(form.outputs(student)),
        "agreement": agreement.as_dict(),
        "rounding": rounding,
        "versions": {"onnxruntime": version("onnxruntime"), **_versions(kind)},
    }
