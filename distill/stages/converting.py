"""``pocketiqa export --format``: a float student in another form, measured against it on photographs and ratings."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from distill.evaluation.benchmarks.registry import load_benchmark, names_benchmark
from distill.stages.export import export_checkpoint
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.outputs import new_file
from pseudo_labels.parallel import Progress
from pseudo_labels.photos import bundled_photographs
from students.formats.card import converted_card
from students.formats.convert import INT8, W8, ConversionReport, FloatStudent, convert, open_float, read_float
from students.formats.packages import PackageReport, write_package
from students.formats.photographs import Photographs, RatedPhotographs, evenly
from students.formats.registry import FORMATS, check_installed, format_named
from students.paths import find_images
from students.shipped import NAMES, model_path

FLOAT_FORMAT = "onnx"
BUNDLED = "bundled photographs"
# Photographs: each is used whole and damaged, and those to compare on in three sizes.
_MOST_CALIBRATED, _MOST_COMPARED, _MOST_RATED = 64, 24, 1500
_TRAIN = "train"


def check_options(
    source: str,
    kind: str,
    *,
    half: bool,
    calibrate: str | None,
    rated: str | None,
    card: bool,
    environment: Path | None = None,
) -> None:
    """Refuse a format that is unknown or cannot be written here, and options that it does not have.

    Raises:
        PocketiqaError: naming the format or the option.
    """
    check_installed(kind)
    if kind == FLOAT_FORMAT and model_path(source).suffix == ".onnx":
        raise PocketiqaError(
            f"{source} is exported already: copy it, or choose another form of it with --format {INT8}"
        )
    if half and not format_named(kind).halves:
        takers = ", ".join(name for name, entry in FORMATS.items() if entry.halves)
        raise PocketiqaError(f"--half is for --format {takers}, not for {kind}: leave it out")
    converter = format_named(kind).environment
    if environment is not None and converter is None:
        takers = ", ".join(name for name, entry in FORMATS.items() if entry.environment)
        raise PocketiqaError(f"--environment is for --format {takers}, not for {kind}: leave it out")
    if environment is None and converter is not None and not converter.is_ready():
        raise PocketiqaError(converter.missing())
    if kind not in (INT8, W8) and (calibrate is not None or rated is not None or card):
        raise PocketiqaError(f"--calibrate, --rated and --card are for 8 bits: add --format {INT8} or {W8}")
    if kind == W8 and calibrate is not None:
        raise PocketiqaError(f"--calibrate is for --format {INT8}: {W8} rounds weights, which needs no photographs")


def export_converted(
    source: str,
    kind: str,
    out: Path,
    *,
    calibrate: str | None = None,
    rated: str | None = None,
    images: Sequence[Path] = (),
    card: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ConversionReport:
    """Write a student in 8 bits.

    Args:
        source: a training folder or student folder; a file that ``pocketiqa export`` wrote; or a model of the package.
        kind: name of the format.
        out: file to write, or its address.
        calibrate: folder or file of photographs, or ``NAME:FOLDER`` of a benchmark, whose train part is taken; None is
            the bundled photographs.
        rated: benchmark whose train part decides whether the rank correlation with people stays; None leaves that out.
        images: photographs that scores are compared on; the bundled ones if empty.
        card: also write a model card, under the name of the file with ``.md``.
        overwrite: replace an existing file.
        progress: called with (done, total) images of the calibration.

    Raises:
        PocketiqaError: no student there, photographs of a test part, or scores that do not follow.
        OutputConflictError: ``out`` exists.
    """
    card_path = out.with_suffix(".md") if card else None
    # First, before the seconds that opening and quantising take.
    with (
        new_file(out, overwrite=overwrite, objects=True) as file,
        new_file(card_path, overwrite=overwrite, objects=True) as card_file,
    ):
        calibration = photographs_of(calibrate)
        ratings = None if rated is None else _rated(rated)
        report = convert(
            float_student(source),
            kind,
            file,
            calibration=calibration,
            compared=_compared(images),
            rated=ratings,
            progress=progress,
        )
        card_file.write(converted_card(report).encode())
        return report


def prepare_environment(kind: str, folder: Path | None, tell: Callable[[str], None]) -> None:
    """Make the environment of a format's converter where the user asked for it; nothing is done if it is there.

    Args:
        kind: name of the format.
        folder: where; None asks for nothing.
        tell: called with what is going to happen, before minutes and gigabytes are spent.

    Raises:
        PocketiqaError: see ``Environment.make``.
    """
    converter = format_named(kind).environment
    if converter is None or folder is None or converter.is_ready(folder):
        return
    tell(
        f"making the environment of the converter of {kind} at {folder}: {', '.join(converter.packages)} "
        f"and what they need, about {converter.gigabytes:g} GB, once"
    )
    converter.make(folder)


def export_package(
    source: str,
    kind: str,
    out: Path,
    *,
    images: Sequence[Path] = (),
    half: bool = False,
    environment: Path | None = None,
    overwrite: bool = False,
) -> PackageReport:
    """Write a student in a format that is a folder (``students.formats.packages``).

    Args:
        source: as for ``export_converted``.
        kind: name of the format.
        out: folder to write, or its address.
        images: photographs that scores are compared on; the bundled ones if empty.
        half: weights in float16.
        environment: as for ``write_package``.
        overwrite: replace an earlier export.

    Raises:
        PocketiqaError: no student there, or scores that differ.
        OutputConflictError: ``out`` holds something else.
    """
    compared = _compared(images)
    student = float_student(source)
    return write_package(student, kind, out, compared=compared, half=half, environment=environment, overwrite=overwrite)


def _compared(images: Sequence[Path]) -> Photographs:
    if not images:
        return photographs_of(None)
    files = find_images(images, recursive=False)
    return Photographs(f"{len(files)} given images", evenly(files, _MOST_COMPARED))


def float_student(source: str) -> FloatStudent:
    """The float student of a name, a file or a checkpoint; the latter is exported and compared with torch first.

    Raises:
        PocketiqaError: there is none, or it has been converted already.
    """
    path = model_path(source)
    if path.suffix == ".onnx":
        return read_float(path)
    if not path.exists():
        raise PocketiqaError(
            f"no student at {source}: give a training or student folder, an exported .onnx file, or one of "
            f"{', '.join(NAMES)}"
        )
    with tempfile.TemporaryDirectory() as folder:
        report = export_checkpoint(path, Path(folder) / f"{path.name}.onnx")
        return open_float(report.path.read_bytes(), source)


def photographs_of(source: str | None) -> Photographs:
    """Photographs of a folder, a file or the train part of a benchmark; None is the bundled ones.

    Raises:
        PocketiqaError: none of these.
    """
    if source is None:
        return Photographs(BUNDLED, list(bundled_photographs().values()))
    if names_benchmark(source):
        rated = _rated(source)
        return Photographs(rated.name, [path for path, _ in evenly(rated.rows, _MOST_CALIBRATED)])
    if not Path(source).exists():
        raise PocketiqaError(f"no photographs at {source}: give a folder, an image, or a benchmark as NAME:FOLDER")
    files = find_images([Path(source)], recursive=True)
    return Photographs(f"{len(files)} images of the user's", evenly(files, _MOST_CALIBRATED))


def _rated(source: str) -> RatedPhotographs:
    """Rated photographs that may be used: the train part where there are parts, else all, but never a test part."""
    benchmark = load_benchmark(source)
    parts = {row.split for row in benchmark.rows}
    rows = [row for row in benchmark.rows if row.split == (_TRAIN if parts != {""} else "")]
    if not rows:
        raise PocketiqaError(
            f"{source} has no train part, and nothing may be calibrated on {', '.join(sorted(parts))}: give another one"
        )
    folder = Path(source.partition(":")[2].partition("?")[0]).name
    # Folders of one benchmark may hold different parts of it.
    name = benchmark.name if folder in ("", benchmark.name) else f"{benchmark.name} ({folder})"
    if parts != {""}:
        name += f", {_TRAIN} part"
    return RatedPhotographs(name, [(row.path, row.score) for row in evenly(rows, _MOST_RATED)])
