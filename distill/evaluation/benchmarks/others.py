"""Generated pictures (AGIQA-3K), the mixed database BIQ2021 and ratings of your own in a CSV file."""

import os
import re
from dataclasses import replace
from pathlib import Path

from distill.evaluation.benchmarks.records import Benchmark, BenchmarkRow, Scale, check_rows
from distill.evaluation.benchmarks.splits import derive_splits
from distill.evaluation.benchmarks.tables import Row, find_file, find_folder, number, read_csv
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import from_utf8_path

# Accepted spellings of the splits, in lower case.
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
    "": "",
}
# Accepted names of the image column, the preferred one first.
_IMAGE_COLUMNS = ("image", "path", "image_name", "name")
_OWN_COLUMNS = ("group", "split", "subset", "ref", "near_train")
_FLAGS = {**dict.fromkeys(("1", "true", "yes"), True), **dict.fromkeys(("", "0", "false", "no"), False)}
_BIQ_SCALE = Scale(0, 1)


def read_agiqa3k(root: Path) -> Benchmark:
    """AGIQA-3K: 2,982 pictures by six generators.

    ``data.csv`` (columns name, prompt, ..., mos_quality from 0 to 5, mos_align). Pictures of one prompt, whatever
    generator and style, are one group; the generator (the name up to the first underscore) is the subset.
    """
    name = "agiqa3k"
    labels = find_file(root, ["data.csv"], benchmark=name, source="the authors (lcysyzxdxc/AGIQA-3k-Database)")
    images = find_folder(root, ["images", "AGIQA-3K", "."], benchmark=name)
    scale, rows = Scale(0, 5), []
    for position, row in enumerate(read_csv(labels, ["name", "prompt", "mos_quality"])):
        image, native = row["name"], number(row, "mos_quality", path=labels, position=position)
        # The words after the first comma name the style; the scene is what stands before it.
        prompt = row["prompt"].split(",")[0].strip().lower()
        generator = image.split("_")[0]
        rows.append(
            BenchmarkRow(
                id=image,
                path=str(images / image),
                mos_native=native,
                score=scale.score(native, f"{labels}, data row {position + 1}"),
                group=prompt,
                subset=generator,
            )
        )
    return Benchmark(
        name=name,
        rows=check_rows(name, derive_splits(name, rows)),
        scale=scale,
        citation="Li et al.: AGIQA-3K, IEEE TCSVT 2024, doi 10.1109/TCSVT.2023.3319020",
        licence="see the licence file of its repository",
        split_origin="derived",
        notes=("split by prompt: no prompt is in two parts",),
    )


def read_biq2021(root: Path) -> Benchmark:
    """BIQ2021: 12,000 photographs of 512x512 pixels in three subsets.

    Either the published files ``Train (Images and MOS).csv`` and ``Test (Images and MOS).csv`` (columns Image Name, MOS
    and two empty ones; 0 to 1) with the folder ``Images``, or a prepared ``mos.csv`` (columns image, mos, subset,
    split, group, near_train) with the folder ``images``. The published split puts pictures of one scene on both sides;
    only the prepared file knows which (group and near_train).
    """
    return _biq_prepared(root) if (root / "mos.csv").is_file() else _biq_published(root)


def _biq_prepared(root: Path) -> Benchmark:
    labels, images = root / "mos.csv", find_folder(root, ["images", "Images"], benchmark="biq2021")
    rows = []
    columns = ["image", "mos", "subset", "split", "group", "near_train"]
    for position, row in enumerate(read_csv(labels, columns)):
        native = number(row, "mos", path=labels, position=position)
        rows.append(
            BenchmarkRow(
                id=row["image"],
                path=str(images / row["image"]),
                mos_native=native,
                score=_BIQ_SCALE.score(native, f"{labels}, data row {position + 1}"),
                group=row["group"],
                split=_split(row, labels, position),
                subset=row["subset"],
                near_training=row["near_train"] == "1",
            )
        )
    near_training = sum(row.near_training for row in rows)
    note = f"{near_training} test images show a scene of the training part; headline figures leave them out"
    return _biq(rows, (note,) if near_training else ())


def _biq_published(root: Path) -> Benchmark:
    name, rows = "biq2021", []
    images = find_folder(root, ["Images", "images"], benchmark=name)
    for split, stem in (("train", "Train"), ("test", "Test")):
        names = [f"{stem} (Images and MOS).csv", f"{stem}.csv"]
        labels = find_file(root, names, benchmark=name, source="the authors (nisarahmedrana/BIQ2021)")
        for position, row in enumerate(read_csv(labels, ["Image Name", "MOS"])):
            image, native = row["Image Name"], number(row, "MOS", path=labels, position=position)
            # Names are like "ss03 (3753).jpg": the first word is the subset.
            subset = image.split(" ")[0]
            rows.append(
                BenchmarkRow(
                    id=image,
                    path=str(images / image),
                    mos_native=native,
                    score=_BIQ_SCALE.score(native, f"{labels}, data row {position + 1}"),
                    group=image,
                    split=split,
                    subset=subset,
                )
            )
    # Each image is its own group here, so intervals come out too narrow as well.
    note = "the published split shares scenes between train and test, which flatters every figure (no groups are known)"
    return _biq(rows, (note,))


def _biq(rows: list[BenchmarkRow], notes: tuple[str, ...]) -> Benchmark:
    return Benchmark(
        name="biq2021",
        rows=check_rows("biq2021", rows),
        scale=_BIQ_SCALE,
        citation="Ahmed, Asif: BIQ2021, Journal of Electronic Imaging 2022, doi 10.1117/1.JEI.31.5.053010",
        licence="public research database without a licence file; ss03 comes from Unsplash",
        split_origin="published",
        notes=notes,
    )


def read_csv_benchmark(path: Path, scale: Scale | None = None) -> Benchmark:
    """Your own ratings.

    Columns: one of image, path, image_name, name (relative to the file's folder, or absolute), and mos; optionally
    group, split, subset, ref, near_train (1 for yes). For separators, encodings and decimal commas see
    ``tables.read_csv``. Backslashes of relative paths are read as slashes, unless there is a file of that very name.

    Args:
        path: the CSV file.
        scale: scale of the column mos; 0 to 1 with 1 best if None.

    Raises:
        PocketiqaError: a column or number is missing or wrong, a rating lies outside the scale, or a group is in two
            splits.
    """
    if not path.is_file():
        raise PocketiqaError(f"no CSV file {path}: give the file itself, such as csv:ratings.csv")
    table = read_csv(path, ["mos"], [*_IMAGE_COLUMNS, *_OWN_COLUMNS])
    header = list(table[0]) if table else []
    column = next((name for name in _IMAGE_COLUMNS if name in header), None)
    if column is None:
        known, given = ", ".join(_IMAGE_COLUMNS), ", ".join(header) or "no rows"
        raise PocketiqaError(f"{path} has none of the columns {known} that name the images: it has {given}")
    used = scale or Scale(0, 1)
    rows = [_own_row(path, row, column, used, position) for position, row in enumerate(table)]
    _check_disjoint(path, rows)
    return Benchmark(
        name=path.stem,
        rows=check_rows(path.stem, rows),
        scale=used,
        citation="own ratings",
        licence="unknown",
        split_origin="published" if any(row.split for row in rows) else "none",
    )


def _own_row(path: Path, row: Row, column: str, scale: Scale, position: int) -> BenchmarkRow:
    native = number(row, "mos", path=path, position=position)
    # As in ``Scale.score``, but with the hint that helps here: the scale is the owner's to name.
    if not scale.low <= native <= scale.high:
        limits = f"outside the scale {scale.low:g} to {scale.high:g}"
        hint = f"name the scale, such as csv:{path.name}?scale=1:5 (or ?scale=0:100&best=low for difference scores)"
        raise PocketiqaError(f"{path}, data row {position + 1}: rating {native:g} lies {limits}; {hint}")
    image = _with_slashes(path, row[column], position)
    reference = _with_slashes(path, row.get("ref", ""), position)
    if not image:
        raise PocketiqaError(f"{path}, data row {position + 1}: {column} is empty, but must name an image")
    return BenchmarkRow(
        id=image,
        path=str(path.parent / from_utf8_path(image)),
        mos_native=native,
        score=scale.score(native, str(path)),
        # Distorted copies of one reference show one scene; without either column every image is a scene of its own.
        group=row.get("group", "") or reference or image,
        split=_split(row, path, position),
        subset=row.get("subset", ""),
        ref=str(path.parent / reference) if reference else "",
        near_training=_flag(row, path, position),
    )


def _with_slashes(path: Path, image: str, position: int) -> str:
    """A path of Windows, relative to the label file, as one of this system."""
    if re.match(r"[A-Za-z]:[\\/]|\\\\", image):
        raise PocketiqaError(
            f"{path}, data row {position + 1}: {image!r} is an absolute path of Windows; write paths relative to the "
            "folder of the file"
        )
    return image if os.path.lexists(path.parent / image) else image.replace("\\", "/")


def _flag(row: Row, path: Path, position: int) -> bool:
    value = row.get("near_train", "")
    if value.lower() not in _FLAGS:
        raise PocketiqaError(f"{path}, data row {position + 1}: near_train is {value!r}, known: 1 and 0")
    return _FLAGS[value.lower()]


def _split(row: Row, path: Path, position: int) -> str:
    value = row.get("split", "").lower()
    if value not in _SPLIT_NAMES:
        raise PocketiqaError(f"{path}, data row {position + 1}: split is {value!r}, known: train, validation, test")
    return _SPLIT_NAMES[value]


def _check_disjoint(path: Path, rows: list[BenchmarkRow]) -> None:
    # An empty split counts like any other: a group must be assigned as a whole.
    split_of: dict[str, str] = {}
    for row in rows:
        if split_of.setdefault(row.group, row.split) != row.split:
            both = f"{split_of[row.group]!r} and {row.split!r}"
            raise PocketiqaError(f"{path}: group {row.group!r} is in the splits {both}; keep each group in one split")


def with_derived_splits(benchmark: Benchmark) -> Benchmark:
    """The same benchmark, split 70/10/20 by hash of the group if it has no split of its own."""
    if benchmark.split_origin != "none":
        return benchmark
    return replace(benchmark, rows=tuple(derive_splits(benchmark.name, benchmark.rows)), split_origin="derived")
