"""The formats by name: what each needs, where it runs, and how closely it must repeat the float file. Without torch."""

from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType

from pseudo_labels.errors import PocketiqaError

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
        extra: extra of pocketiqa that installs them.
        ending: appended to the name of the student, such as ``-int8``; empty if the name stays.
        suffix: suffix of the file; empty if it is a folder.
    """

    summary: str
    precision: str
    modules: MappingProxyType[str, str]
    extra: str
    ending: str = ""
    suffix: str = ".onnx"


_ONNX = MappingProxyType({"onnx": "onnx"})

FORMATS: MappingProxyType[str, Format] = MappingProxyType(
    {
        "onnx": Format("the student itself, in float32 (--half: weights in float16)", FLOAT, _ONNX, "train"),
        "onnx-int8": Format(
            "arithmetic in 8 bits: faster on processors with VNNI (or ARM's dot products)",
            EIGHT_BITS,
            _ONNX,
            "train",
            "-int8",
        ),
        "onnx-w8": Format(
            "weights in 8 bits, arithmetic in float32: a quarter of the file, for downloads",
            EIGHT_BITS,
            _ONNX,
            "train",
            "-w8",
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
