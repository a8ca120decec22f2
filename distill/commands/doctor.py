"""What this machine can do: versions, devices, and which teachers can run."""

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
    *("scikit-image", "scikit-learn", "imagehash", "pydantic", "pyyaml", "onnx", "matplotlib", "tensorboard"),
    *("piq",),
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


def doctor_tables() -> list[Table]:
    """Machine, versions, and teachers."""
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
    return [here, versions, teachers]
