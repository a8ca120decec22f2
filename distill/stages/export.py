"""``pocketiqa export``: a training folder, a student or a published checkpoint becomes one ONNX file."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pseudo_labels.images import load
from pseudo_labels.outputs import new_file
from pseudo_labels.photos import bundled_photographs
from students.contract import UNKNOWN_SCALE, StudentContract
from students.export import ExportReport, draft_contract, export_onnx
from students.paths import find_images
from students.storage import open_student

# As many as the largest batch of the parity check, which then holds no photograph twice; more only take time.
_PARITY_IMAGES = 3


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    name: str | None = None,
    images: Sequence[Path] = (),
    half: bool = False,
    overwrite: bool = False,
) -> ExportReport:
    """Write a student as ONNX, with the contract that its record supports.

    Args:
        checkpoint: training folder, a folder with ``student.json``, or the file of a student that others published
            (see ``students.storage.open_student``).
        out: the .onnx file, or its address.
        name: name of the student; None is the one in its record.
        images: files and folders of real photographs for the parity check; the bundled ones if empty.
        half: store weights in float16, see ``students.export.export_onnx``.
        overwrite: replace an existing file.

    Raises:
        PocketiqaError: no student there, no usable image, or the exported file does not score as the student does.
        OutputConflictError: ``out`` exists.
    """
    # First, before the seconds that opening and tracing a student take.
    with new_file(out, overwrite=overwrite, objects=True) as file:
        opened = open_student(checkpoint)
        about = opened.about
        contract = draft_contract(
            opened.student,
            name=name or about.get("name") or out.stem,
            scale=about.get("scale") or _scale(about),
            teachers=about.get("teachers", []),
            data=_data_entries(about),
            metrics={"validation": about.get("validation", {})},
            region_scale=_region_scale(about),
            region_metrics={"validation": about.get("validation", {}).get("regions", {})},
        )
        contract = _with_scores_of(contract, about, name)
        photographs = [load(path) for path in _parity_images(images)]
        return export_onnx(opened.student, contract, file, images=photographs, half=half)


def _scale(about: dict[str, Any]) -> str:
    """The scale of the scores in words: that of the teachers, or of the ratings that were learned."""
    taught = [f"{stamp['name']}: {stamp['scale']}" for stamp in about.get("teachers", [])]
    rated = [(source["name"], source.get("about", {})) for source in about.get("data", [])]
    ratings = [f"ratings of {name}, {facts['scale']}, mapped to 0 to 1" for name, facts in rated if "scale" in facts]
    return "; ".join(taught or ratings) or "unknown"


def _with_scores_of(contract: StudentContract, about: dict[str, Any], name: str | None) -> StudentContract:
    """The contract of a student that gained a region head: what it says of scores stays true, and regions join it."""
    if "scores_of" not in about:
        return contract
    earlier = StudentContract.from_dict(about["scores_of"]["contract"])
    return replace(
        earlier,
        name=name or earlier.name,
        student=contract.student,
        parameters=contract.parameters,
        macs=contract.macs,
        code_version=contract.code_version,
        teachers=(*earlier.teachers, *(one for one in contract.teachers if one not in earlier.teachers)),
        data=(*earlier.data, *contract.data),
        regions=contract.regions,
    )


def _region_scale(about: dict[str, Any]) -> str:
    """The scale of the quality of regions: that of the teachers whose labels of regions were learned."""
    stamps = {json.dumps(stamp, sort_keys=True): stamp for stamp in about.get("region_teachers", [])}
    return "; ".join(f"{stamp['name']}: {stamp['scale']}" for stamp in stamps.values()) or UNKNOWN_SCALE


def _data_entries(about: dict[str, Any]) -> list[dict[str, Any]]:
    """Name, digest and licence of weights that others made, and of the training sources.

    The licence of a pool is known to the user alone.
    """
    # Weights of others are data as well: their licence binds whoever uses the export.
    weights = [about["weights"]] if "weights" in about else []
    sources = [
        {
            "name": source["name"],
            "digest": source["labels"],
            "licence": source.get("about", {}).get("licence", "as the photographs of its pool"),
        }
        for source in about.get("data", [])
    ]
    return weights + sources


def _parity_images(images: Sequence[Path]) -> list[Path]:
    if images:
        return find_images(images, recursive=False)[:_PARITY_IMAGES]
    # Real photographs, and at hand wherever students are trained: parity is promised for images as in use.
    return list(bundled_photographs().values())[:_PARITY_IMAGES]
