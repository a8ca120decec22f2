"""Photographs with the faults that cameras and people give them: KonIQ-10k, SPAQ, LIVE Challenge, FLIVE, UHD-IQA.

Facts on the files were checked against the published label files and the public code that reads them; each reader
says what it relies on.
"""

import re
from pathlib import Path
from typing import Any

from distill.evaluation.benchmarks.records import Benchmark, BenchmarkRow, Scale, check_rows
from distill.evaluation.benchmarks.splits import derive_splits
from distill.evaluation.benchmarks.tables import Row, find_file, find_folder, number, read_csv, read_sheet
from pseudo_labels.errors import PocketiqaError

PUBLISHED_SETS = {"training": "train", "train": "train", "validation": "validation", "test": "test"}


def read_koniq(root: Path) -> Benchmark:
    """KonIQ-10k: 10,073 photographs, crowd ratings.

    ``koniq10k_distributions_sets.csv`` (columns image_name, c1..c5, c_total, MOS, SD, set) holds the rating on the
    scale 1 to 100 as MOS and the published split; ``koniq10k_scores_and_distributions.csv`` holds the same rating as
    MOS_zscore (its MOS is the raw mean of 1 to 5) and no split.
    """
    name = "koniq10k"
    labels = find_file(
        root,
        [
            "koniq10k_distributions_sets.csv",
            "metadata/koniq10k_distributions_sets.csv",
            "koniq10k_scores_and_distributions.csv",
        ],
        benchmark=name,
        source="the KonIQ-10k page of the MMSP group, Konstanz",
    )
    images = find_folder(root, ["1024x768", "512x384", "koniq10k_1024x768", "koniq10k_512x384"], benchmark=name)
    # Only the file with the sets has MOS on 1 to 100; in the other one MOS is the raw mean of 1 to 5.
    published = "sets" in labels.name
    rating = "MOS" if published else "MOS_zscore"
    scale = Scale(1, 100)
    rows = []
    for position, row in enumerate(read_csv(labels, ["image_name", rating] + ["set"] * published)):
        image, native = row["image_name"], number(row, rating, path=labels, position=position)
        split = _published_split(row["set"], labels, position) if published else ""
        rows.append(
            BenchmarkRow(
                id=image,
                path=str(images / image),
                mos_native=native,
                score=scale.score(native, f"{labels}, data row {position + 1}"),
                group=image,
                split=split,
            )
        )
    return Benchmark(
        name=name,
        rows=check_rows(name, rows if published else derive_splits(name, rows)),
        scale=scale,
        citation="Hosu, Lin, Sziranyi, Saupe: KonIQ-10k, IEEE TIP 2020, doi 10.1109/TIP.2020.2967829",
        licence="images: Creative Commons, per image; ratings: see the terms on its page",
        split_origin="published" if published else "derived",
    )


def _published_split(value: str, path: Path, position: int) -> str:
    if value not in PUBLISHED_SETS:
        raise PocketiqaError(f"{path}, data row {position + 1}: set is {value!r}, known: {', '.join(PUBLISHED_SETS)}")
    return PUBLISHED_SETS[value]


def read_spaq(root: Path) -> Benchmark:
    """SPAQ: 11,125 smartphone photographs, rated in a laboratory.

    ``MOS and Image attribute scores.xlsx`` (first sheet, columns "Image name" and "MOS", 0 to 100), or the same sheet
    saved as CSV. No split is published.
    """
    name, columns = "spaq", ["Image name", "MOS"]
    stems = ["Annotations/MOS and Image attribute scores", "MOS and Image attribute scores"]
    stems.append("Annotations/MOS_and_Image_attribute_scores")
    # CSV first: it needs no openpyxl.
    names = [stem + ending for ending in (".csv", ".xlsx") for stem in stems]
    labels = find_file(root, names, benchmark=name, source="the SPAQ repository of its authors (h4nwei/SPAQ)")
    images = find_folder(root, ["TestImage", "Dataset/TestImage"], benchmark=name)
    table = read_csv(labels, columns) if labels.suffix == ".csv" else read_sheet(labels, None, columns)
    scale, rows = Scale(0, 100), []
    for position, row in enumerate(table):
        image, native = row["Image name"], number(row, "MOS", path=labels, position=position)
        rows.append(
            BenchmarkRow(
                id=image,
                path=str(images / image),
                mos_native=native,
                score=scale.score(native, f"{labels}, data row {position + 1}"),
                group=image,
            )
        )
    return Benchmark(
        name=name,
        rows=check_rows(name, derive_splits(name, rows)),
        scale=scale,
        citation="Fang, Zhu, Zeng, Ma, Wang: Perceptual quality assessment of smartphone photography, CVPR 2020",
        licence="see the terms on its page",
        split_origin="derived",
    )


def read_livec(root: Path) -> Benchmark:
    """LIVE In the Wild Image Quality Challenge (CLIVE): 1,162 photographs, crowd ratings.

    ``Data/AllImages_release.mat`` holds the names (a column of cells) and ``Data/AllMOS_release.mat`` the ratings (0
    to 100) of 1,169 images. The first seven trained the raters and are left out, as is usual: they lie in
    ``Images/trainingImages`` under the names t1 to t7.
    """
    name, source = "livec", "the LIVE laboratory, University of Texas at Austin"
    files = {}
    for array in ("AllImages_release", "AllMOS_release"):
        files[array] = find_file(root, [f"Data/{array}.mat", f"{array}.mat"], benchmark=name, source=source)
    images = find_folder(root, ["Images"], benchmark=name)
    names = [_cell_text(cell) for cell in read_mat(files["AllImages_release"], "AllImages_release").ravel()]
    ratings = [float(value) for value in read_mat(files["AllMOS_release"], "AllMOS_release").ravel()]
    if len(names) != len(ratings):
        raise PocketiqaError(f"benchmark {name}: {len(names)} names but {len(ratings)} ratings; fetch both files again")
    # The training images are recognised by name and, in the complete file, by position too.
    whole = len(names) == 1169
    scale, rows = Scale(0, 100), []
    for position, (image, native) in enumerate(zip(names, ratings, strict=True)):
        if re.fullmatch(r"t\d+\.\w+", image) or (whole and position < 7):
            continue
        rows.append(
            BenchmarkRow(
                id=image,
                path=str(images / image),
                mos_native=native,
                score=scale.score(native, f"{files['AllMOS_release']}, {image}"),
                group=image,
            )
        )
    return Benchmark(
        name=name,
        rows=check_rows(name, derive_splits(name, rows)),
        scale=scale,
        citation="Ghadiyaram, Bovik: Massive online crowdsourced study, IEEE TIP 2016, doi 10.1109/TIP.2015.2500021",
        licence="free with acknowledgement of LIVE, University of Texas at Austin",
        split_origin="derived",
        notes=("the seven images that trained the raters are left out",),
    )


def read_mat(path: Path, array: str) -> Any:
    """One array of a MATLAB file (version 5 to 7).

    Raises:
        PocketiqaError: the file cannot be read or holds no such array.
    """
    # Half a second that readers of CSV need not pay.
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=[array])
    except Exception as error:  # of zlib, struct and scipy itself, which share no base class
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PocketiqaError(f"{path} cannot be read as a MATLAB file: {reason}; get it again") from error
    if array not in content:
        raise PocketiqaError(f"{path} holds no array {array!r}: is it the published file?")
    return content[array]


def _cell_text(cell: Any) -> str:
    """The text in a MATLAB cell, which scipy gives as an array in an array."""
    while not isinstance(cell, str):
        cell = cell[0]
    return cell


def read_flive(root: Path) -> Benchmark:
    """FLIVE (LIVE-FB, PaQ-2-PiQ): 39,810 photographs of several sources, crowd ratings.

    ``labels_image.csv`` (columns name, mos; 0 to 100). The published split is spread over two more files: the images
    larger than 640 pixels in ``labels>640.csv`` (or ``labels640.csv``, column name_image) are the test set, and
    ``labels<=640_padded.csv`` (or ``labels=640_padded.csv``) marks the validation images by is_valid.
    """
    name, source = "flive", "the authors of PaQ-2-PiQ (baidut/PaQ-2-PiQ)"
    labels = find_file(root, ["labels_image.csv", "database/labels_image.csv"], benchmark=name, source=source)
    table = read_csv(labels, ["name", "mos"])
    images = find_folder(root, ["database", "images", "."], benchmark=name)
    split_of = _flive_split(labels.parent, table)
    scale, rows = Scale(0, 100), []
    for position, row in enumerate(table):
        image, native = row["name"], number(row, "mos", path=labels, position=position)
        # One photograph of VOC was copied under two names, JPEGImages__X and VOC2012__X.
        group = image.rsplit("/", 1)[-1].rsplit("__", 1)[-1]
        split, subset = split_of.get(image, "train") if split_of else "", image.split("/")[0] if "/" in image else ""
        rows.append(
            BenchmarkRow(
                id=image,
                path=str(images / image),
                mos_native=native,
                score=scale.score(native, f"{labels}, data row {position + 1}"),
                group=group,
                split=split,
                subset=subset,
            )
        )
    return Benchmark(
        name=name,
        rows=check_rows(name, rows if split_of else derive_splits(name, rows)),
        scale=scale,
        citation="Ying et al.: From patches to pictures (PaQ-2-PiQ), CVPR 2020",
        licence="see the terms on its page; images: of their sources (AVA, EMOTIC, VOC, blur detection)",
        split_origin="published" if split_of else "derived",
    )


def _flive_split(folder: Path, table: list[Row]) -> dict[str, str]:
    """Split of the images that are not for training; empty if the files of the published split are incomplete."""
    test = next((folder / n for n in ("labels>640.csv", "labels640.csv") if (folder / n).is_file()), None)
    padded = ("labels<=640_padded.csv", "labels=640_padded.csv")
    marked = next((folder / n for n in padded if (folder / n).is_file()), None)
    if test is None:
        return {}
    column = "name_image"
    # Without the padded file, the labels of the full images may carry the flags themselves.
    flags = read_csv(marked, [column, "is_valid"]) if marked else table
    column_of_flags = column if marked else "name"
    if flags and "is_valid" not in flags[0]:
        return {}
    split_of = {row[column_of_flags]: "validation" for row in flags if row["is_valid"].lower() in ("true", "1")}
    # Test last, so that it wins over a mark of validation: no test image may choose a checkpoint.
    return split_of | {row[column]: "test" for row in read_csv(test, [column])}


def read_uhdiqa(root: Path) -> Benchmark:
    """UHD-IQA: 6,073 photographs of 3,840 pixels width, rated by professionals.

    ``uhd-iqa-metadata.csv`` (columns image_name, quality_mos from 0 to 1, set, subset, ...); images in ``training``,
    ``validation`` and ``test``. The first release for the AIM 2024 challenge had ``uhd-iqa-training-metadata.csv``
    alone, without the column set.
    """
    name = "uhdiqa"
    labels = find_file(
        root,
        ["uhd-iqa-metadata.csv", "uhd-iqa-training-metadata.csv"],
        benchmark=name,
        source="the UHD-IQA page of the MMSP group, Konstanz",
    )
    only_training = "training" in labels.name
    columns = ["image_name", "quality_mos"] + ["set"] * (not only_training)
    scale, rows = Scale(0, 1), []
    for position, row in enumerate(read_csv(labels, columns)):
        image, native = row["image_name"], number(row, "quality_mos", path=labels, position=position)
        published = "training" if only_training else row["set"]
        split = _published_split(published, labels, position)
        # Three layouts are in use: the sets beside the metadata, below ``challenge``, or all in one folder ``images``.
        folder = next((root / f for f in (published, f"challenge/{published}") if (root / f).is_dir()), root / "images")
        rows.append(
            BenchmarkRow(
                id=image,
                path=str(folder / image),
                mos_native=native,
                score=scale.score(native, f"{labels}, data row {position + 1}"),
                group=image,
                split=split,
                subset=row.get("subset", ""),
            )
        )
    return Benchmark(
        name=name,
        rows=check_rows(name, rows),
        scale=scale,
        citation="Hosu et al.: UHD-IQA benchmark database, ECCV workshops 2024, arXiv 2406.17472",
        licence="images: Pixabay; ratings: see the terms on its page",
        split_origin="published",
    )
