"""Clean references distorted on purpose: KADID-10k, TID2013, LIVE release 2, CSIQ. The reference is the group."""

import re
from pathlib import Path

from distill.evaluation.benchmarks.records import Benchmark, BenchmarkRow, Scale, check_rows
from distill.evaluation.benchmarks.splits import derive_splits
from distill.evaluation.benchmarks.tables import find_file, find_folder, number, read_csv, read_sheet, read_text
from distill.evaluation.benchmarks.wild import read_mat
from pseudo_labels.errors import PocketiqaError

_SPLIT_NOTE = "split by reference: no reference is in two parts"

# Families of the 25 distortions, in the order of the database.
_KADID_FAMILIES = (
    ["blur"] * 3 + ["colour"] * 5 + ["compression"] * 2 + ["noise"] * 5 + ["brightness"] * 3 + ["spatial"] * 5
) + ["sharpness and contrast"] * 2

# The 24 distortions, in the order of the database.
_TID_TYPES = [
    "additive Gaussian noise",
    "additive noise in colour",
    "spatially correlated noise",
    "masked noise",
    "high frequency noise",
    "impulse noise",
    "quantization noise",
    "Gaussian blur",
    "denoising",
    "JPEG",
    "JPEG2000",
    "JPEG transmission errors",
    "JPEG2000 transmission errors",
    "non-eccentricity pattern",
    "local blocks",
    "mean shift",
    "contrast change",
    "colour saturation",
    "multiplicative Gaussian noise",
    "comfort noise",
    "lossy compression of noisy images",
    "colour quantization with dither",
    "chromatic aberrations",
    "sparse sampling",
]

# Number of images in each folder, in the order of the arrays.
_LIVE_FOLDERS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}

# Name in csiq.DMOS.xlsx -> token in the file names.
_CSIQ_TOKENS = {
    "noise": "AWGN",
    "blur": "BLUR",
    "contrast": "contrast",
    "fnoise": "fnoise",
    "jpeg": "JPEG",
    "jpeg 2000": "jpeg2000",
}


def read_kadid(root: Path) -> Benchmark:
    """KADID-10k: 81 references, 25 distortions, 5 levels.

    ``dmos.csv`` (columns dist_img, ref_img, dmos, var). Despite its name, dmos is a mean rating (MOS) of 1 to 5 with 5
    the best (5 is "imperceptible" on the degradation category scale), so nothing is reversed.
    """
    name = "kadid10k"
    labels = find_file(root, ["dmos.csv"], benchmark=name, source="the KADID-10k page of the MMSP group, Konstanz")
    images = find_folder(root, ["images", "distorted_images"], benchmark=name)
    # Some copies have the references among the distorted images.
    references = root / "reference_images" if (root / "reference_images").is_dir() else images
    scale, rows = Scale(1, 5), []
    for position, row in enumerate(read_csv(labels, ["dist_img", "ref_img", "dmos"])):
        image, reference = row["dist_img"], row["ref_img"]
        native = number(row, "dmos", path=labels, position=position)
        kind = re.fullmatch(r"\w+?_(\d\d)_\d\d\.\w+", image)
        if kind is None or not 1 <= int(kind[1]) <= len(_KADID_FAMILIES):
            raise PocketiqaError(f"{labels}, data row {position + 1}: {image!r} is not named like I01_01_01.png")
        rows.append(
            BenchmarkRow(
                id=image,
                path=str(images / image),
                mos_native=native,
                score=scale.score(native, f"{labels}, data row {position + 1}"),
                group=reference,
                subset=_KADID_FAMILIES[int(kind[1]) - 1],
                ref=str(references / reference),
            )
        )
    return Benchmark(
        name=name,
        rows=check_rows(name, derive_splits(name, rows)),
        scale=scale,
        citation="Lin, Hosu, Saupe: KADID-10k, QoMEX 2019, doi 10.1109/QoMEX.2019.8743252",
        licence="images: Pixabay; ratings: see the terms on its page",
        split_origin="derived",
        notes=(_SPLIT_NOTE, "the column dmos is a mean rating, 5 best"),
    )


def read_tid2013(root: Path) -> Benchmark:
    """TID2013: 25 references, 24 distortions, 5 levels.

    ``mos_with_names.txt``: lines of a rating (MOS, 0 to 9, 9 best) and a name such as I01_01_1.bmp. Copies of the
    database differ in upper and lower case of the names, so files are matched without regard to case.
    """
    name = "tid2013"
    source = "the TID2013 page of N. Ponomarenko, Tampere"
    labels = find_file(root, ["mos_with_names.txt"], benchmark=name, source=source)
    images = index_files(find_folder(root, ["distorted_images"], benchmark=name))
    references = index_files(root / "reference_images")
    scale, rows = Scale(0, 9), []
    lines = [line.split() for line in read_text(labels).splitlines() if line.strip()]
    for position, fields in enumerate(lines):
        known = re.fullmatch(r"(i\d\d)_(\d\d)_\d\.bmp", fields[-1].lower()) if len(fields) == 2 else None
        if known is None or not 1 <= int(known[2]) <= len(_TID_TYPES):
            raise PocketiqaError(f"{labels}, line {position + 1}: {' '.join(fields)!r} is not like '5.51 I01_01_1.bmp'")
        image, native = known[0], number({"MOS": fields[0]}, "MOS", path=labels, position=position)
        rows.append(
            BenchmarkRow(
                id=image,
                # A missing file keeps its usual path: that it is missing is said when the image is scored.
                path=str(images.get(image, root / "distorted_images" / fields[1])),
                mos_native=native,
                score=scale.score(native, f"{labels}, data row {position + 1}"),
                group=known[1],
                subset=_TID_TYPES[int(known[2]) - 1],
                ref=str(references.get(f"{known[1]}.bmp", root / "reference_images" / f"{known[1].upper()}.BMP")),
            )
        )
    return Benchmark(
        name=name,
        rows=check_rows(name, derive_splits(name, rows)),
        scale=scale,
        citation="Ponomarenko et al.: Image database TID2013, Signal Processing: Image Communication 2015",
        licence="see the terms on its page",
        split_origin="derived",
        notes=(_SPLIT_NOTE,),
    )


def index_files(folder: Path) -> dict[str, Path]:
    """Files below ``folder`` by name in lower case."""
    return {path.name.lower(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def read_live(root: Path, *, include_references: bool = False) -> Benchmark:
    """LIVE Image Quality Assessment Database, release 2: 29 references, 5 distortions, 779 distorted images.

    ``dmos_realigned.mat`` (array dmos_new, from -2.64 to 111.77) or, where missing, ``dmos.mat`` (array dmos, 0 to
    100): difference scores, low is best, of 982 images in the order jp2k, jpeg, wn, gblur, fastfading. ``orgs`` marks
    the 203 that are copies of references. ``refnames_all.mat`` names the reference of each.

    Args:
        root: folder of the database.
        include_references: whether to include the 203 undistorted copies, which are usually left out.
    """
    name, source = "live", "the LIVE laboratory, University of Texas at Austin"
    labels = find_file(root, ["dmos_realigned.mat", "dmos.mat"], benchmark=name, source=source)
    realigned = "realigned" in labels.name
    names = find_file(root, ["refnames_all.mat"], benchmark=name, source=source)
    ratings = read_mat(labels, "dmos_new" if realigned else "dmos").ravel()
    copies = read_mat(labels, "orgs").ravel()
    references = read_mat(names, "refnames_all").ravel()
    # The arrays are not keyed by name: the position in this order is what links a rating to its file.
    files = [f"{folder}/img{number + 1}.bmp" for folder, count in _LIVE_FOLDERS.items() for number in range(count)]
    if not len(ratings) == len(copies) == len(references) == len(files):
        counts = f"{len(ratings)} ratings, {len(copies)} flags, {len(references)} references"
        raise PocketiqaError(f"benchmark {name}: {counts}, but release 2 has {len(files)} of each")
    # Realigned scores run from -2.64 to 111.77; the scale is rounded outwards so that none is refused.
    scale, rows = Scale(-3, 112, "low") if realigned else Scale(0, 100, "low"), []
    for image, native, copy, cell in zip(files, ratings, copies, references, strict=True):
        if copy and not include_references:
            continue
        reference = str(cell[0])
        rows.append(
            BenchmarkRow(
                id=image,
                path=str(root / image),
                mos_native=float(native),
                score=scale.score(float(native), f"{labels}, {image}"),
                group=reference,
                subset=image.split("/")[0],
                ref=str(root / "refimgs" / reference),
            )
        )
    return Benchmark(
        name=name,
        rows=check_rows(name, derive_splits(name, rows)),
        scale=scale,
        citation="Sheikh, Sabir, Bovik: A statistical evaluation, IEEE TIP 2006, doi 10.1109/TIP.2006.881959",
        licence="free with acknowledgement of LIVE, University of Texas at Austin",
        split_origin="derived",
        notes=(_SPLIT_NOTE, *(() if include_references else ("undistorted copies of references are left out",))),
    )


def read_csiq(root: Path) -> Benchmark:
    """CSIQ: 30 references, 6 distortions, 866 distorted images.

    ``csiq.DMOS.xlsx`` (sheet all_by_image, columns image, dst_type, dst_lev, dmos; the header is not in the first row),
    or ``csiq_label.txt``, lines such as "1600.AWGN.1.png 0.062" that many copies carry instead. Difference scores of 0
    to 1, low is best. Images are looked up by name anywhere below the folder, as copies arrange them differently.
    """
    name = "csiq"
    source = "the CSIQ page of D. Chandler's laboratory"
    labels = find_file(root, ["csiq_label.txt", "csiq.DMOS.xlsx"], benchmark=name, source=source)
    ratings = _csiq_text(labels) if labels.suffix == ".txt" else _csiq_sheet(labels)
    files = index_files(root)
    scale, rows = Scale(0, 1, "low"), []
    for image, native in ratings:
        reference, token = image.split(".")[0], image.split(".")[1]
        rows.append(
            BenchmarkRow(
                id=image,
                path=str(files.get(image.lower(), root / "dst_imgs" / token.lower() / image)),
                mos_native=native,
                score=scale.score(native, f"{labels}, {image}"),
                group=reference.lower(),
                subset=token.lower(),
                ref=str(files.get(f"{reference.lower()}.png", root / "src_imgs" / f"{reference}.png")),
            )
        )
    return Benchmark(
        name=name,
        rows=check_rows(name, derive_splits(name, rows)),
        scale=scale,
        citation="Larson, Chandler: Most apparent distortion, J. Electronic Imaging 2010, doi 10.1117/1.3267105",
        licence="see the terms on its page",
        split_origin="derived",
        notes=(_SPLIT_NOTE,),
    )


def _csiq_sheet(labels: Path) -> list[tuple[str, float]]:
    ratings = []
    for position, row in enumerate(read_sheet(labels, "all_by_image", ["image", "dst_type", "dst_lev", "dmos"])):
        if row["dst_type"] not in _CSIQ_TOKENS:
            known = ", ".join(_CSIQ_TOKENS)
            raise PocketiqaError(f"{labels}, data row {position + 1}: dst_type is {row['dst_type']!r}, known: {known}")
        image = f"{row['image']}.{_CSIQ_TOKENS[row['dst_type']]}.{row['dst_lev']}.png"
        ratings.append((image, number(row, "dmos", path=labels, position=position)))
    return ratings


def _csiq_text(labels: Path) -> list[tuple[str, float]]:
    ratings = []
    for position, line in enumerate(read_text(labels).splitlines()):
        fields = line.split()
        if not fields:
            continue
        # Names with or without the ending are read.
        image = fields[0].removesuffix(".png") + ".png"
        if len(fields) != 2 or image.count(".") != 3:
            raise PocketiqaError(f"{labels}, line {position + 1}: {line.strip()!r} is not like '1600.AWGN.1.png 0.062'")
        ratings.append((image, number({"dmos": fields[1]}, "dmos", path=labels, position=position)))
    return ratings
