"""What this machine can do: versions, devices, which teachers can run, and which formats students can have."""

import importlib
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.table import Table
from rich.text import Text

from pseudo_labels.parallel import usable_cores

# In the order in which the stages of a run need them.
_PACKAGES = (
    *("numpy", "pillow", "pillow-heif", "onnxruntime", "typer", "rich"),
    *("torch", "torchvision", "timm", "accelerate", "datasets", "fsspec", "pyarrow", "safetensors", "scipy"),
    *("scikit-image", "scikit-learn", "pydantic", "pyyaml", "onnx", "matplotlib", "tensorboard"),
    *("piq", "openvino", "ncnn", "pnnx", "coremltools", "executorch", "ai-edge-litert", "ray", "s3fs"),
)


@dataclass(frozen=True)
class TeacherState:
    """Whether a teacher can run here.

    Attributes:
        name: registry name.
        summary: the teacher in one line.
        missing: distributions that are not installed.
        files: what the user must supply besides, in words; empty if nothing.
    """

    name: str
    summary: str
    missing: list[str]
    files: str


def installed_versions() -> dict[str, str]:
    """Version of every package that pocketiqa uses; an empty string where it is not installed."""

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return ""

    return {name: installed(name) for name in ("pocketiqa", *_PACKAGES)}


def machine() -> dict[str, Any]:
    """Operating system, Python, usable cores and accelerators as one flat record."""
    record: dict[str, Any] = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": usable_cores(),
        "onnxruntime": ", ".join(importlib.import_module("onnxruntime").get_available_providers()),
    }
    record["accelerators"] = ", ".join(_accelerators()) or "none"
    return record


def _accelerators() -> list[str]:
    try:
        import torch
    except ModuleNotFoundError:
        return []
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [*names, "mps"] if torch.backends.mps.is_available() else names


def teacher_states() -> list[TeacherState]:
    """Every registered teacher and the distributions that it misses here."""
    from teachers.registry import TEACHERS, missing_requirements

    return [
        TeacherState(name, entry.summary, missing_requirements(name), entry.files) for name, entry in TEACHERS.items()
    ]


@dataclass(frozen=True)
class FormatState:
    """Whether a student can be written in a format, or run by an engine, on this machine.

    Attributes:
        name: format or engine.
        summary: what it is for.
        missing: distributions that are not installed.
        only_on: where its runtime is, if it is not here.
        lacks: what else it lacks, in words; empty if nothing.
    """

    name: str
    summary: str
    missing: list[str]
    only_on: str = ""
    lacks: str = ""


def format_states() -> list[FormatState]:
    """Every format of students and what it misses here, then every engine that runs them."""
    from students.engines import ENGINES, missing_of
    from students.formats.registry import FORMATS, Format, missing_packages

    def lacks(entry: Format) -> str:
        return entry.environment.missing() if entry.environment and not entry.environment.is_ready() else ""

    formats = [
        FormatState(name, entry.summary, missing_packages(name), entry.only_on, lacks(entry))
        for name, entry in FORMATS.items()
    ]
    return formats + [
        FormatState(f"engine {name}", "runs students: score --engine", missing_of(name)) for name in ENGINES
    ]


def doctor_tables() -> list[Table]:
    """Machine, versions, teachers, and formats of students."""
    here = Table("this machine", "", box=None, header_style="bold", pad_edge=False)
    for name, value in machine().items():
        here.add_row(name, str(value))
    versions = Table("package", "version", box=None, header_style="bold", pad_edge=False)
    for name, value in installed_versions().items():
        versions.add_row(name, value or Text("not installed", "yellow"))
    teachers = Table("teacher", "can run here", "what it is", box=None, header_style="bold", pad_edge=False)
    for state in teacher_states():
        verdict = f"with your {state.files}" if state.files else "yes"
        if state.missing:
            verdict = Text(f"no: install {', '.join(state.missing)}", "yellow")
        teachers.add_row(state.name, verdict, state.summary)
    formats = Table("format", "can be used here", "what it is", box=None, header_style="bold", pad_edge=False)
    for state in format_states():
        verdict = Text(f"no: install {', '.join(state.missing)}", "yellow") if state.missing else "yes"
        if state.lacks and not state.missing:
            verdict = Text(f"run, but not written: {state.lacks}", "yellow")
        if state.only_on and not state.missing:
            verdict = f"written and checked here; runs on {state.only_on}"
        formats.add_row(state.name, verdict, state.summary)
    return [here, versions, teachers, formats]
