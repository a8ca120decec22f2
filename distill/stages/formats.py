"""``pocketiqa formats``: every form of a student that can be made and run here, measured in one process, in turn."""

import io
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from distill.stages.converting import INT8, W8, export_converted, export_package, float_student, photographs_of
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import write_atomic
from pseudo_labels.images import load
from pseudo_labels.parallel import Progress, usable_cores
from students.engines import ENGINES, check_engine
from students.formats.agreement import inputs_of_several_sizes, measure_agreement
from students.formats.measured import Measured, Row
from students.formats.packages import FORMS, Package
from students.formats.photographs import evenly
from students.formats.registry import check_installed, format_named
from students.formats.sealing import seal
from students.formats.timing import processor_flags, processor_times
from students.latency import machine_name
from students.paths import find_images
from students.runtime import Scorer
from students.shipped import FOLDER, model_path

FLOAT = "onnx"
# Side of the JPEG that is timed from its bytes to its score, as in the tables of docs/performance.md.
_SIDE, _QUALITY = 512, 90
_MOST_IMAGES = 8


def measure_formats(
    model: str, *, images: Sequence[Path] = (), calibrate: str | None = None, progress: Progress | None = None
) -> Measured:
    """Make and measure every form of a student.

    A student of the package is measured with the file in 8 bits that lies beside it.

    Args:
        model: as for ``export_converted``.
        images: photographs to compare on and to time with; the bundled ones if empty.
        calibrate: as for ``export_converted``.
        progress: called with (done, total) steps.

    Raises:
        PocketiqaError: no student there, or no usable photograph.
    """
    source = float_student(model)
    files = [Path(path) for path in (find_images(images) if images else photographs_of(None).paths)]
    files = evenly(files, _MOST_IMAGES)
    photographs = [load(path) for path in files]
    if not photographs:
        raise PocketiqaError("no photographs to compare on: name files or folders with --images")
    kinds = (FLOAT, INT8, W8)
    done, total = 0, len(kinds) + len(kinds) * len(ENGINES) + len(FORMS) + 1

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    with tempfile.TemporaryDirectory() as folder:
        float_path = Path(folder) / f"{FLOAT}.onnx"
        # Sealed anew: a checkpoint was exported for the moment alone.
        write_atomic(float_path, seal(source.graph, source.contract, model)[0])
        made: dict[str, tuple[Path | None, str]] = {FLOAT: (float_path, "")}
        step()
        for kind in kinds[1:]:
            made[kind] = _converted(kind, model, Path(folder), calibrate, files if images else ())
            step()
        reference = Scorer(float_path)
        inputs = inputs_of_several_sizes(photographs, source.contract.preprocess)
        scorers, rows = dict[tuple[str, str], Scorer | Package](), []
        for engine in ENGINES:
            for kind, (path, missing) in made.items():
                row, scorer = _row(kind, engine, path, missing)
                if scorer is not None:
                    scorers[kind, engine] = scorer
                    row = replace(row, agreement=measure_agreement(reference.infer, scorer.infer, inputs))
                rows.append(row)
                step()
        for kind in FORMS:
            row, package = _packaged(kind, float_path, Path(folder), files)
            # What is only evaluated here has no time of its own.
            if package is not None and not format_named(kind).only_on:
                scorers[kind, row.engine] = package
            rows.append(row)
            step()
        rows = _timed(rows, scorers, photographs[0])
        step()
    machine = ", ".join([machine_name(), *processor_flags()])
    return Measured(source.contract.name, source.digest, tuple(rows), machine, os.getloadavg()[0] / usable_cores())


def _converted(
    kind: str, model: str, folder: Path, calibrate: str | None, images: Sequence[Path]
) -> tuple[Path | None, str]:
    """The file of a format and an empty text, or the reason why there is none."""
    beside = model_path(f"{model}-int8")
    if kind == INT8 and calibrate is None and beside.parent == FOLDER and model_path(model).parent == FOLDER:
        return beside, ""
    path = folder / f"{kind}.onnx"
    try:
        export_converted(model, kind, path, calibrate=calibrate if kind == INT8 else None, images=images)
    except PocketiqaError as error:
        return None, str(error)
    return path, ""


def _row(kind: str, engine: str, path: Path | None, missing: str) -> tuple[Row, Scorer | None]:
    if path is None:
        return Row(kind, engine, missing=missing), None
    try:
        check_engine(engine)
        return Row(kind, engine, path.stat().st_size), Scorer(path, engine=engine)
    except PocketiqaError as error:
        return Row(kind, engine, path.stat().st_size, missing=str(error)), None


def _packaged(kind: str, source: Path, folder: Path, images: Sequence[Path]) -> tuple[Row, Package | None]:
    """A format that is a folder; its agreement is the one that its contract states."""
    engine = format_named(kind).engine
    try:
        check_installed(kind)
        report = export_package(str(source), kind, folder / kind, images=images)
        return Row(kind, engine, report.size_bytes, report.agreement), Package(report.path)
    except PocketiqaError as error:
        return Row(kind, engine, missing=str(error)), None


def _timed(rows: list[Row], scorers: dict[tuple[str, str], Scorer | Package], photograph: np.ndarray) -> list[Row]:
    def square(scorer: Scorer | Package) -> np.ndarray:
        side = scorer.contract.preprocess.largest
        return np.ascontiguousarray(np.asarray(Image.fromarray(photograph).resize((side, side))))[None]

    stored = io.BytesIO()
    Image.fromarray(photograph).resize((_SIDE, _SIDE)).save(stored, "JPEG", quality=_QUALITY)
    jpeg = stored.getvalue()
    # A mapping keeps its order: the float file in ONNX Runtime is first, and all others are compared with it.
    names = {f"{kind} {engine}": scorer for (kind, engine), scorer in scorers.items()}
    network = processor_times({name: partial(scorer.infer, square(scorer)) for name, scorer in names.items()})
    whole = processor_times({name: partial(scorer.score, jpeg) for name, scorer in names.items()})
    return [
        replace(row, network=network.get(f"{row.name} {row.engine}"), whole=whole.get(f"{row.name} {row.engine}"))
        for row in rows
    ]
