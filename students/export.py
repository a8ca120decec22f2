"""A student -> one ONNX file with contract and checksum inside, or an error where ONNX Runtime and torch disagree."""

import copy
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.outputs import NewFile, write_file
from students.base import Student, StudentOutput
from students.complexity import count_parameters, measure_complexity
from students.config import DP_IQA_B7, StudentConfig
from students.contract import UNKNOWN_SCALE, Calibration, StudentContract
from students.formats.embedding import add_embedding
from students.formats.halves import halved
from students.formats.sealing import seal, unsealed
from students.look import SecondLook
from students.preprocess import Preprocess
from students.registry import new_student
from students.session import EMBEDDING, INPUT, OUTPUTS, REGION_OUTPUTS, start_session

# Older runtimes do not read newer ones, and the network needs no operator of a newer one.
OPSET = 17
MAX_DIFFERENCE = 1e-4
"""Largest accepted absolute difference of score, quality map and weight map; the scores span 0 to 1."""
MAX_HALF_DIFFERENCE = 1e-2
"""Largest accepted difference where weights were rounded to float16; before rounding, ``MAX_DIFFERENCE`` holds.

Rounding errs by up to 1/2048 of each weight, and the errors of some fifty layers add up. Measured on the bundled
photographs with pocket-m and pocket-s trained on BIQ2021: scores moved by up to 0.001, cells of the maps by 0.004.
"""
EMBEDDING_ALLOWANCE = 5.0
"""How many times further than scores and maps an embedding may differ: its numbers pass no sigmoid.

Measured where weights are rounded, on six of the bundled photographs: 0.013 (pocket-s) and 0.019 (pocket-m, both of
2026-11-29) of its largest value.
"""
# Height and width of the traced image: sides differ, so that the exporter cannot take one for the other.
_TRACED_SIZE = (96, 64)
# Sizes of the batches compared: one, and several, where a frozen batch size fails.
_BATCHES = (1, 3)
# Height and width of further images: odd and oblong, where a size that was frozen while tracing fails.
_ODD_SIZES = ((64, 64), (65, 97), (127, 71))
_ADVICE = "look for exploding activations, or try another version of onnxruntime"
_HALF_ADVICE = "its weights do not bear rounding to float16: export it without --half"
_WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Parity:
    """Differences between the exported file in ONNX Runtime and the torch model, on the CPU.

    Attributes:
        score: largest absolute difference of a score.
        quality_map: largest absolute difference of a cell of the quality map.
        weight_map: largest absolute difference of a cell of the weight map.
        limit: difference above which the export is refused.
        cases: number of batches compared.
        images: number of images in these batches.
        sizes: height and width in pixels of the images compared, each once.
        versions: versions of torch, onnx and onnxruntime, by package.
        region_quality_map: as ``quality_map``, of the region head; None where there is none.
        region_weight_map: likewise.
        embedding: likewise, relative to the largest value where that is above 1; None of a student without it.
    """

    score: float
    quality_map: float
    weight_map: float
    limit: float
    cases: int
    images: int
    sizes: tuple[tuple[int, int], ...]
    versions: dict[str, str]
    region_quality_map: float | None = None
    region_weight_map: float | None = None
    embedding: float | None = None

    @property
    def differences(self) -> dict[str, float]:
        """Largest difference of each output."""
        values = {name: getattr(self, name) for name in (*OUTPUTS, *REGION_OUTPUTS, EMBEDDING)}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def worst(self) -> float:
        """The largest of these, that of the embedding by its allowance; NaN if any output was not finite."""
        allowed = {EMBEDDING: EMBEDDING_ALLOWANCE}
        return float(np.max([value / allowed.get(name, 1.0) for name, value in self.differences.items()]))

    def as_dict(self) -> dict[str, Any]:
        """JSON form, without outputs that the student does not have."""
        record = asdict(self)
        return {name: value for name, value in record.items() if value is not None}


@dataclass(frozen=True)
class ExportReport:
    """A written export.

    Attributes:
        path: path of the ONNX file.
        size_bytes: size of the file in bytes.
        digest: hex SHA-256 of the model, the checksum in the file.
        contract: contract stored in the file.
        parity: measured differences from the torch model.
    """

    path: Path
    size_bytes: int
    digest: str
    contract: StudentContract
    parity: Parity


def draft_contract(
    student: Student,
    *,
    name: str,
    scale: str,
    calibration: Calibration | None = None,
    teachers: Sequence[Mapping[str, Any]] = (),
    data: Sequence[Mapping[str, Any]] = (),
    metrics: Mapping[str, Any] | None = None,
    region_scale: str = UNKNOWN_SCALE,
    region_metrics: Mapping[str, Any] | None = None,
) -> StudentContract:
    """The contract of a student before its export; architecture and costs are read from the student.

    Args:
        student: student to be exported.
        name: name of the student, such as ``pocket-m``.
        scale: scale of the scores, see ``StudentContract``.
        calibration: raw score -> score; None where the raw score is the score.
        teachers: ``TeacherStamp.as_dict()`` of each teacher.
        data: data sets it was trained on, each with ``name``, ``digest`` and ``licence``.
        metrics: results of the evaluation, JSON values.
        region_scale: scale of the quality of regions, of a student with a region head.
        region_metrics: results on regions, likewise.
    """
    complexity = measure_complexity(student)
    regions = _region_contract(student, region_scale, region_metrics or {})
    return StudentContract(
        name=name,
        student=student.config.as_dict(),
        preprocess=student.config.preprocess,
        scale=scale,
        parameters=complexity.parameters,
        macs=complexity.macs - (0 if regions is None else regions["macs"]),
        regions=regions,
        code_version=_code_version(),
        calibration=calibration,
        teachers=tuple(dict(stamp) for stamp in teachers),
        data=tuple(dict(entry) for entry in data),
        metrics=dict(metrics or {}),
    )


def _region_contract(student: Student, scale: str, metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    if student.config.regions is None:
        return None
    # The same network without the head: what is asked of it where no region is wanted.
    plain = copy.deepcopy(student)
    setattr(plain, "regions", None)  # noqa: B010 - torch's modules accept tensors and modules alone by their types
    return {
        "scale": scale,
        "map_stride": student.config.regions.map_stride,
        "parameters": count_parameters(student) - count_parameters(plain),
        "macs": measure_complexity(student).macs - measure_complexity(plain).macs,
        "metrics": dict(metrics),
    }


def _code_version() -> str:
    try:
        return version("pocketiqa")
    except PackageNotFoundError:
        return "unknown"


def export_onnx(
    student: Student,
    contract: StudentContract,
    out: NewFile | str | Path,
    *,
    images: Sequence[np.ndarray],
    max_difference: float = MAX_DIFFERENCE,
    half: bool = False,
) -> ExportReport:
    """Write a student as ONNX; nothing is written unless ONNX Runtime repeats torch's outputs.

    The file maps ``rgb`` (uint8 [N, H, W, 3], any size from 64 pixels) to ``score`` [N], ``quality_map`` and
    ``weight_map`` [N, h, w], all raw: calibration and resize are the runtime's, as the contract says; of a student with
    a region head, to ``region_quality_map`` and ``region_weight_map``; and to ``embedding`` [N, E], but for the
    published student (``DP_IQA_B7``).

    Args:
        student: student on any device, in any mode; it is left as it is.
        contract: contract of the student, see ``draft_contract``; its parity is measured here.
        out: path of the file, of which an earlier one is replaced in one step, or a file that was claimed
            (``outputs.new_file``).
        images: real photographs, uint8 HxWx3, at least one; compared as a whole, and in crops of odd sizes.
        max_difference: largest accepted difference, see ``MAX_DIFFERENCE``.
        half: store weights in float16, see ``halve_weights``; differences may then reach ``MAX_HALF_DIFFERENCE``.

    Raises:
        PocketiqaError: no images, a contract of another student, or the outputs differ too much.
    """
    if contract.student != student.config.as_dict() or contract.preprocess != student.config.preprocess:
        raise PocketiqaError(f"the contract describes a {contract.backbone} that is not this student: draft it anew")
    # A copy: the caller's student may be on a GPU, in half precision or in the middle of its training.
    frozen = copy.deepcopy(student).to("cpu", torch.float32).eval()
    with _one_thread():
        graph, cases = _graph_of(frozen), parity_cases(student, images)
        parity = compare(frozen, graph.SerializeToString(), cases, max_difference)
        if half:
            # Compared twice, so that an error of the exporter cannot hide behind the wider limit of rounding.
            graph = halve_weights(graph)
            parity = compare(frozen, graph.SerializeToString(), cases, MAX_HALF_DIFFERENCE, advice=_HALF_ADVICE)
    contract = replace(contract, parity=parity.as_dict())
    path = Path(out.path or "") if isinstance(out, NewFile) else Path(out)
    data, digest = seal(graph, contract, str(path))
    write_file(out, data)
    return ExportReport(path, len(data), digest, contract, parity)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute with one thread: a few images need no more, and several wait for each other on a busy machine.

    The differences that the contract states then do not depend on the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Outputs(nn.Module):
    """A student without its features, of which the runtime needs no map."""

    def __init__(self, student: Student):
        super().__init__()
        self.student = student

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        return _parts(self.student(rgb), _traced_names(self.student))


def _traced_names(student: Student) -> tuple[str, ...]:
    return OUTPUTS if student.config.regions is None else OUTPUTS + REGION_OUTPUTS


def _output_names(student: Student) -> tuple[str, ...]:
    return _traced_names(student) + (() if student.config.backbone == DP_IQA_B7 else (EMBEDDING,))


def _parts(output: StudentOutput, names: Sequence[str]) -> tuple[Tensor, ...]:
    return tuple(getattr(output, name) for name in names)


def _graph_of(student: Student) -> onnx.ModelProto:
    graph = _trace(student)
    # By the function that adds it to files, so that both are the same.
    return add_embedding(graph) if EMBEDDING in _output_names(student) else graph


def _trace(student: Student) -> onnx.ModelProto:
    """The graph with normalisation inside, batch normalisation folded, batch and size free.

    By torch's older exporter: it takes a second, and "same" padding makes the newer one run for minutes.
    """
    maps = {0: "batch", 1: "map_height", 2: "map_width"}
    region_maps = {0: "batch", 1: "region_map_height", 2: "region_map_width"}
    axes = {INPUT: {0: "batch", 1: "height", 2: "width"}, OUTPUTS[0]: {0: "batch"}, OUTPUTS[1]: maps, OUTPUTS[2]: maps}
    names = _traced_names(student)
    axes |= dict.fromkeys(names[len(OUTPUTS) :], region_maps)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        # It announces its deprecation, and that traced constants are constants.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Outputs(student).eval(),
            # Any image: no branch of a student depends on pixels.
            (torch.zeros(1, *_TRACED_SIZE, 3, dtype=torch.uint8),),
            f"{folder}/student.onnx",
            input_names=[INPUT],
            output_names=list(names),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
        return onnx.load(f"{folder}/student.onnx")


def with_look(data: bytes, look: SecondLook | None, name: str) -> bytes:
    """An exported file that asks for another second look, or for none; its graph stays as it is.

    Args:
        data: content of the exported file.
        look: see ``students.look``.
        name: name of the file in an error.

    Raises:
        IntegrityError: the file was altered.
        PocketiqaError: it holds no student.
    """
    graph, contract, _ = unsealed(data, name)
    return seal(graph, replace(contract, look=look), name)[0]


def parity_cases(student: Student, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Batches to compare on: each image alone, resized as in use, and batches of crops of odd sizes.

    Args:
        student: student whose configuration resizes the images.
        images: uint8 HxWx3, at least one.

    Returns:
        uint8 [N, H, W, 3] each.

    Raises:
        PocketiqaError: no images.
    """
    if not images:
        raise PocketiqaError("no images to compare ONNX Runtime with torch: give at least one photograph")
    resized = [student.config.preprocess.resize(image) for image in images]
    cases = [image[None] for image in resized]
    for index, (height, width) in enumerate(_ODD_SIZES):
        # Another corner for each size, so that more of each photograph is compared.
        crops = [np.ascontiguousarray(_crop(image, height, width, offset=index * 16)) for image in resized]
        cases += [np.stack([crops[position % len(crops)] for position in range(count)]) for count in _BATCHES]
    return cases


def _crop(image: np.ndarray, height: int, width: int, *, offset: int) -> np.ndarray:
    """A crop whose upper left corner is ``offset`` pixels down and right; beyond the border the image is repeated."""
    rows = (np.arange(height) + offset) % image.shape[0]
    columns = (np.arange(width) + offset) % image.shape[1]
    return image[rows][:, columns]


def compare(
    student: Student, model: bytes, cases: Sequence[np.ndarray], limit: float, *, advice: str = _ADVICE
) -> Parity:
    """Run torch and ONNX Runtime on each batch and compare their outputs.

    Args:
        student: student on the CPU, in evaluation mode.
        model: serialised ONNX.
        cases: uint8 [N, H, W, 3] each, see ``parity_cases``.
        limit: largest accepted absolute difference.
        advice: next step that the error gives.

    Raises:
        PocketiqaError: a difference above ``limit``, or a number that is not finite.
    """
    session = start_session(model, 1, "the exported graph")
    names = _output_names(student)
    worst = np.zeros(len(names))
    for batch in cases:
        with torch.inference_mode():
            expected = _parts(student(torch.from_numpy(batch)), names)
        outputs = [np.asarray(value) for value in session.run(list(names), {INPUT: batch})]
        if EMBEDDING in names:
            # Torch gives the first part of it; the others are sums over maps that it begins and ends with.
            outputs[-1] = outputs[-1][:, : expected[-1].shape[1]]
        # np.maximum hands NaN on, where max may pass over it.
        worst = np.maximum(
            worst, [_difference(a.numpy(), b, name) for a, b, name in zip(expected, outputs, names, strict=True)]
        )
    parity = Parity(
        **dict(zip(names, map(float, worst), strict=True)),
        limit=limit,
        cases=len(cases),
        images=sum(len(batch) for batch in cases),
        sizes=tuple(sorted({(batch.shape[1], batch.shape[2]) for batch in cases})),
        # Parity was measured with these; another runtime may have other kernels.
        versions={"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
    )
    # Not ``worst > limit``: that is false for NaN, which must be refused as well.
    if not parity.worst <= limit:
        raise PocketiqaError(
            f"the export was refused: ONNX Runtime differs from torch by {parity.worst:.2g} of the score range, the "
            f"limit is {limit:g} ({_listed(parity.differences)}); {advice}"
        )
    return parity


def _listed(differences: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.2g}" for name, value in differences.items())


def _difference(expected: np.ndarray, output: np.ndarray, name: str) -> float:
    if expected.shape != output.shape:
        raise PocketiqaError(
            f"the export was refused: ONNX Runtime gives the shape {output.shape} where torch gives {expected.shape}"
        )
    # float64, so that the subtraction adds no rounding of its own.
    difference = float(np.max(np.abs(expected.astype(np.float64) - output)))
    # The other outputs lie in [0, 1]; features have no scale.
    return difference / max(1.0, float(np.abs(expected).max())) if name == EMBEDDING else difference


def halve_weights(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Round the weights to float16, each with a cast back to float32 before it is used; the argument stays as it is.

    ONNX Runtime casts once, while it loads the model, so the network runs as before. Biases and constants stay in
    float32: they are few, and an error in them does not average out. So do tensors with a value beyond float16's range.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    # The second input of these operators is the weight (ONNX operator specification).
    weights = {node.input[1] for node in model.graph.node if node.op_type in _WEIGHTED}
    casts = []
    for initializer in model.graph.initializer:
        half = halved(initializer) if initializer.name in weights else None
        if half is not None:
            stored, cast = half
            initializer.CopyFrom(stored)
            casts.append(cast)
    # ONNX wants nodes in an order in which each comes after those it depends on.
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


# Height and width of the images of the trial: as the first maps of a training and of an export, and a size that no
# stride divides.
_TRIAL_SIZES = ((64, 96), (65, 97))
_TRIAL_HEAD_WIDTH = 8
_TRIAL_HEAD_STD = 0.1
_OTHER_BACKBONE = "choose another backbone, such as mobilenetv4_conv_small"


def check_trainable(config: StudentConfig) -> None:
    """Try in a second or two what a training would find out after hours: one step on odd sizes, and the export.

    Weights, the width of the head and the resize do not matter; an architecture is tried once a process.

    Raises:
        PocketiqaError: an unknown or unfit backbone; one that fails in a training step; or one whose export ONNX
            Runtime cannot run on images of another size, or not as torch does.
    """
    if config.backbone != DP_IQA_B7:  # one architecture, whose export has tests of its own
        _try_architecture(replace(config, head_width=_TRIAL_HEAD_WIDTH, mean=None, std=None, preprocess=Preprocess()))


@lru_cache(maxsize=32)
def _try_architecture(config: StudentConfig) -> None:
    # What layers draw at random is drawn from torch's global generator: seeded here, and put back for the caller.
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(0)
        student, pixels = new_student(config), np.random.default_rng(0)
        try:
            for height, width in _TRIAL_SIZES:
                batch = pixels.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
                output = student.train()(torch.from_numpy(batch))
                maps = sum(one.sum() for one in output.region_maps)
                (output.score.sum() + output.features.square().mean() + maps).backward()
        except Exception as error:  # backbones of timm raise whatever their authors raised
            raise PocketiqaError(
                f"{config.backbone} cannot be trained on images of any size ({_reason(error)}): {_OTHER_BACKBONE}"
            ) from error
        # The maps of new heads hardly vary from cell to cell: these let a wrong export show.
        for name, parameter in student.named_parameters():
            if name in ("heads.weight", "regions.maps.weight"):
                nn.init.normal_(parameter, std=_TRIAL_HEAD_STD)
    cases = [pixels.integers(0, 256, (2, *size, 3), dtype=np.uint8) for size in _ODD_SIZES]
    try:
        with _one_thread():
            compare(student.eval(), _graph_of(student).SerializeToString(), cases, MAX_DIFFERENCE)
    except Exception as error:  # torch's exporter and ONNX Runtime have no common base class
        raise PocketiqaError(
            f"{config.backbone} could be trained, but not exported to ONNX ({_reason(error)}): {_OTHER_BACKBONE}"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
