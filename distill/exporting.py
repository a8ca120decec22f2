"""``pocketiqa export``: from a training folder, a student or a checkpoint to one sealed ONNX file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.evaluation.judges import student_folder
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import load
from pseudo_labels.outputs import refuse_existing
from pseudo_labels.photos import bundled_photographs
from students.export import ExportReport, draft_contract, export_onnx
from students.paths import find_images
from students.storage import RECORD, load_student, read_record

_PARITY_IMAGES = 3


def export_checkpoint(
    checkpoint: Path, out: Path, *, name: str | None = None, images: Sequence[Path] = (), overwrite: bool = False
) -> ExportReport:
    """Write the student of a training run as ONNX, with the contract that its record supports.

    Args:
        checkpoint: a training folder, or a folder with ``student.json``.
        out: the .onnx file.
        name: of the student; the one in its record if None.
        images: files and folders of real photographs for the parity check; the bundled ones if empty.
        overwrite: replace an existing file.

    Raises:
        PocketiqaError: no student there, no usable image, or the exported file does not score as the student does.
        OutputConflictError: ``out`` exists.
    """
    refuse_existing(out, overwrite=overwrite)
    folder = student_folder(checkpoint)
    if folder is None:
        raise PocketiqaError(
            f"{checkpoint} holds no finished student ({RECORD}): name a training folder, and finish the training first"
        )
    about: dict[str, Any] = read_record(folder)["about"]
    teachers: list[dict[str, Any]] = about.get("teachers", [])
    student = load_student(folder)
    contract = draft_contract(
        student,
        name=name or about.get("name") or out.stem,
        scale="; ".join(f"{stamp['name']}: {stamp['scale']}" for stamp in teachers) or "unknown",
        teachers=teachers,
        data=[_data_entry(source) for source in about.get("data", [])],
        metrics={"validation": about.get("validation", {})},
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    return export_onnx(student, contract, out, images=[load(path) for path in _parity_images(images)])


def _data_entry(source: dict[str, Any]) -> dict[str, Any]:
    """What a reader of the contract needs of a training source; whose licence it is, only the user can know."""
    return {"name": source["name"], "digest": source["labels"], "licence": "as the photographs of its pool"}


def _parity_images(images: Sequence[Path]) -> list[Path]:
    if images:
        return find_images(images, recursive=False)[:_PARITY_IMAGES]
    return list(bundled_photographs().values())[:_PARITY_IMAGES]
