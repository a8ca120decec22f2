"""The formats by name: what each needs, where it runs, and how closely it must repeat the float file. Without torch."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from pseudo_labels.errors import PocketiqaError
from students.formats.environments import Environment

FLOAT = "float"
"""Arithmetic and weights in float32: scores differ by at most ``agreement.MAX_FLOAT_DIFFERENCE``."""
EIGHT_BITS = "int8"
"""Weights, or weights and activations, in 8 bits: the rule of ``agreement.EightBitLimits``."""


@dataclass(frozen=True)
class Format:
    """A form in which a student can be written.

    Attributes:
        summary: what it is for, in one line.
        precision: ``FLOAT`` or ``EIGHT_BITS``: which rule it must meet.
        modules: top-level modules that writing it needs, by the distribution that installs them.
        extra: extras of pocketiqa that install them, joined by commas.
        must_keep: its rule in words.
        ending: appended to the name of the student, such as ``-int8``; empty if the name stays.
        suffix: suffix of the file; empty if it is a folder, with the contract as JSON inside (``packages``).
        halves: whether weights can be in float16 (``--half``).
        engine: what runs it when it is compared.
        environment: environment in which its converter works; None if that is installed beside pocketiqa.
        only_on: where else its own runtime is, if not here; empty if it is here once the extra is installed.
    """

    summary: str
    precision: str
    modules: MappingProxyType[str, str]
    extra: str
    must_keep: str
    ending: str = ""
    suffix: str = ".onnx"
    halves: bool = False
    engine: str = "onnxruntime"
    environment: Environment | None = None
    only_on: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder with the contract beside the model, in place of one file with both."""
        return not self.suffix


_EIGHT_BITS = (
    "SRCC to the float scores at least 0.998, mean difference at most 0.005, SRCC with ratings of people at most 0.003 "
    "lower; figures in the contract (`conversion`)"
)
_FLOAT = "as the file in ONNX Runtime: every score to 1e-4"
_HALVED = f"{_FLOAT} (--half: 3e-3)"


def _needed(*names: str) -> MappingProxyType[str, str]:
    """Modules that have the names of their distributions."""
    return MappingProxyType({name: name for name in names})


LITERT = Environment("litert", ("litert-torch", "safetensors"), Path(__file__).with_name("litert.txt"), gigabytes=7)
"""LiteRT's converter with the PyTorch that it needs, which on Linux (x86-64) comes with CUDA."""
_ONNX = _needed("onnx")
_TORCH = ("onnx", "torch", "timm")

FORMATS: MappingProxyType[str, Format] = MappingProxyType(
    {
        "onnx": Format(
            "the student itself, in float32 (--half: weights in float16)",
            FLOAT,
            _ONNX,
            "train",
            "as torch: every score and map to 1e-4 (--half: 1e-2)",
            halves=True,
        ),
        "onnx-int8": Format(
            "arithmetic in 8 bits: faster on processors with VNNI (or ARM's dot products)",
            EIGHT_BITS,
            _ONNX,
            "train",
            _EIGHT_BITS,
            ending="-int8",
        ),
        "onnx-w8": Format(
            "weights in 8 bits, arithmetic in float32: a quarter of the file, for downloads",
            EIGHT_BITS,
            _ONNX,
            "train",
            _EIGHT_BITS,
            ending="-w8",
        ),
        "openvino": Format(
            "OpenVINO's own files, for Intel's processors and graphics",
            FLOAT,
            _needed("onnx", "openvino"),
            "train,openvino",
            _HALVED,
            suffix="",
            halves=True,
            engine="openvino",
        ),
        "ncnn": Format(
            "ncnn's files, for Android, iOS and small boards",
            FLOAT,
            _needed(*_TORCH, "pnnx", "ncnn"),
            "train,ncnn",
            _HALVED,
            suffix="",
            halves=True,
            engine="ncnn",
        ),
        "coreml": Format(
            "a Core ML program, for iOS and macOS",
            FLOAT,
            _needed(*_TORCH, "coremltools"),
            "train,coreml",
            f"{_HALVED}; its program is evaluated here, operation by operation",
            suffix="",
            halves=True,
            engine="evaluation of the program",
            only_on="Apple's devices",
        ),
        "executorch": Format(
            "an ExecuTorch program for XNNPACK, for Android and iOS",
            FLOAT,
            _needed(*_TORCH, "executorch"),
            "train,executorch",
            _FLOAT,
            suffix="",
            engine="executorch",
        ),
        "litert": Format(
            "a LiteRT (TensorFlow Lite) file, for Android, iOS and small boards",
            FLOAT,
            MappingProxyType({**_needed(*_TORCH), "ai_edge_litert": "ai-edge-litert"}),
            "train,litert",
            _FLOAT,
            suffix="",
            engine="litert",
            environment=LITERT,
        ),
    }
)


def format_named(name: str) -> Format:
    """The entry of a format.

    Raises:
        PocketiqaError: there is none of that name.
    """
    if name not in FORMATS:
        raise PocketiqaError(f"format {name!r} is not known: choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def missing_packages(name: str) -> list[str]:
    """Distributions that a format needs and this machine lacks."""
    return [package for module, package in format_named(name).modules.items() if find_spec(module) is None]


def check_installed(name: str) -> None:
    """Refuse a format that cannot be written or run here.

    Raises:
        PocketiqaError: a package is missing; the message says how to install it.
    """
    missing = missing_packages(name)
    if missing:
        raise PocketiqaError(
            f"the format {name} needs {', '.join(missing)}, which is not installed: "
            f"pip install 'pocketiqa[{format_named(name).extra}]'"
        )
