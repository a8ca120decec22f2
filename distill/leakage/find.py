"""Detects test images that are near duplicates of training images, and writes the results into one folder."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.data.split import Part
from distill.leakage.compare import TESTED, TRAINED, Compared, Key, as_record, compare, parts_of
from distill.leakage.embeddings import Embeddings, embed
from distill.leakage.extractor import FeatureExtractor, extraction_threads
from distill.leakage.image_sets import Image, ImageSet
from distill.leakage.neighbours import NotComparableError, check_above
from distill.leakage.page import PAGE, overlap_page
from distill.leakage.record import FORMAT, KIND, RECORD, read_overlap
from pseudo_labels import outputs
from pseudo_labels.defaults import NEAR_DUPLICATE_COSINE
from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError
from pseudo_labels.files import checksummed_json, csv_line, sha256_file, utf8_path, write_atomic
from pseudo_labels.parallel import Progress

GROUPS, SPLIT = "groups.csv", "split.csv"
_NO_FILES = "the trained images are no files with scores"
VALIDATION = 0.15
# A single training image has no deviation to standardise by.
_FEWEST = 2


def write_groups(compared: Compared, path: Path) -> None:
    """Write the set, id and scene of every image that was compared."""
    rows = [[image_set, id, scene] for (image_set, id), scene in compared.scene_of.items()]
    write_atomic(path, _csv(["set", "image", "group"], rows))


def write_split(compared: Compared, path: Path, *, validation: float, seed: int) -> dict[str, Any]:
    """Write a benchmark to train and evaluate on, to be used as ``csv:FILE``.

    Args:
        compared: both image sets with their scenes.
        path: path of the file; an earlier file is removed where none can be written.
        validation: fraction of the validation part, see ``compare.parts_of``.
        seed: seed of the draw of the validation part.

    Returns:
        ``images``, the number of images by part, those left out as ``near test``; and ``reason``, why there is no file.
    """
    images: dict[Key, Image] = {(TRAINED, image.sample.id): image for image in compared.trained.images}
    images |= {(TESTED, image.sample.id): image for image in compared.tested.images}
    # A benchmark needs a path and a rating for every image.
    usable = {key: image for key, image in images.items() if image.file and not math.isnan(image.score)}
    if not any(key[0] == TRAINED for key in usable):
        return _none(path, _NO_FILES)
    try:
        parts = parts_of({key: compared.scene_of[key] for key in usable}, validation=validation, seed=seed)
    except PocketiqaError as error:
        # Too few scenes for a split is a result of the comparison, not a failure.
        return _none(path, str(error))
    rows = []
    for key, image in usable.items():
        if parts[key] in {part.value for part in Part}:
            # A relative path would be read relative to the folder of ``split.csv``; ``repr`` keeps all digits.
            file = utf8_path(os.path.abspath(image.file))
            rows.append([file, repr(float(image.score)), compared.scene_of[key], parts[key], image.subset])
    write_atomic(path, _csv(["image", "mos", "group", "split", "subset"], rows))
    return {"images": dict(Counter(parts.values())), "reason": ""}


def _none(path: Path, reason: str) -> dict[str, Any]:
    path.unlink(missing_ok=True)
    return {"images": {}, "reason": reason}


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    # Ids may hold bytes that are not UTF-8; the file must stay readable.
    return "".join(map(csv_line, (header, *rows))).encode("utf-8", "backslashreplace")


def find_near_duplicates(
    trained: ImageSet,
    tested: ImageSet,
    by: FeatureExtractor,
    out: Path,
    *,
    above: float = NEAR_DUPLICATE_COSINE,
    validation: float = VALIDATION,
    seed: int = 0,
    workers: int = 2,
    threads: int = 1,
    overwrite: bool = False,
    trained_features: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Find the nearest training image of every test image; results of the same inputs and settings are read again.

    Writes ``overlap.json``, ``groups.csv`` (every image with its scene), ``split.csv`` (where the training images are
    files with scores: a benchmark to learn from that shows no scene of a test image) and ``overlap.html``. Features are
    cached beside them and serve other settings too.

    Args:
        trained: training images.
        tested: images that models are evaluated on.
        by: extractor of the features.
        out: output folder.
        above: cosine above which two images are near duplicates, in (-1, 1].
        validation: fraction of the images of ``split.csv`` to learn from that becomes its validation part.
        seed: seed of that draw, and of the bootstrap.
        workers: number of threads that decode images ahead.
        threads: number of CPU threads of a teacher, backbone or student folder.
        overwrite: replace earlier results in ``out``, also those of other inputs or settings.
        trained_features: cache folder of the training images' features, to compare several sets with them; inside
            ``out`` if None.
        progress: called with (done, total) after each image.

    Returns:
        The content of ``overlap.json``, see ``compare.as_record``.

    Raises:
        PocketiqaError: a threshold or fraction is out of range.
        NotComparableError: too few images have features.
        OutputConflictError: ``out`` holds results of other inputs or settings, or something else.
    """
    check_above(above)
    _check(validation, trained, tested)
    # Everything that determines the results: a call with an equal ``spec`` reads them instead of computing them.
    spec = {
        "trained": trained.digest, "tested": tested.digest, "by": by.as_dict(), "above": above,
        "validation": validation, "seed": seed, "version": FORMAT,
    }  # fmt: skip
    with outputs.exclusively(out):
        if _claim(out, spec, overwrite) is not outputs.Claim.DONE:
            with extraction_threads(by, threads):
                folders = trained_features or out / "features-trained", out / "features-tested"
                embeddings = _embeddings((trained, tested), folders, by, workers=workers, progress=progress)
            compared = compare((trained.name, tested.name), *embeddings, above)
            record = as_record(compared, trained, tested, by, seed=seed)
            write_groups(compared, out / GROUPS)
            record["split"] = write_split(compared, out / SPLIT, validation=validation, seed=seed)
            write_atomic(out / PAGE, overlap_page(record, compared).encode())
            write_atomic(out / RECORD, checksummed_json(record))
            # Last, with the checksums: an interrupted comparison is repeated with the cached features, and not read.
            files = [name for name in (RECORD, GROUPS, SPLIT, PAGE) if (out / name).is_file()]
            outputs.finish(out, {"files": {name: sha256_file(out / name) for name in files}})
        return _read(out)


def _check(validation: float, trained: ImageSet, tested: ImageSet) -> None:
    if not 0 < validation < 1:
        raise PocketiqaError(f"validation is {validation:g}: give a fraction above 0 and below 1, such as {VALIDATION}")
    for image_set in (trained, tested):
        if len(image_set.images) < _FEWEST:
            raise NotComparableError(
                f"{image_set.name} has {len(image_set.images)} images to compare: at least {_FEWEST} are needed; name "
                "another pool, benchmark or split"
            )


def _claim(out: Path, spec: dict[str, Any], overwrite: bool) -> outputs.Claim:
    """Claim the folder; an overwritten one keeps its cached features, which carry their own manifest."""
    try:
        claim = outputs.claim(out, KIND, spec)
    except OutputConflictError:
        ours = (out / outputs.MANIFEST).is_file() and outputs.read_manifest(out).kind == KIND
        if not overwrite or not ours:
            raise
        claim = outputs.Claim.RESUME
    if overwrite and claim is not outputs.Claim.NEW:
        # First, and not complete: after a kill nobody takes the old results for those of the new inputs.
        outputs.write_manifest(out, outputs.Manifest(KIND, spec))
        return outputs.Claim.RESUME
    return claim


def _embeddings(
    image_sets: tuple[ImageSet, ImageSet],
    folders: tuple[Path, Path],
    by: FeatureExtractor,
    *,
    workers: int,
    progress: Progress | None,
) -> tuple[Embeddings, Embeddings]:
    """Features of the training and of the test images, with one count of progress over both."""
    trained, tested = image_sets
    done, total = 0, len(trained.images) + len(tested.images)

    def step(images: int) -> None:
        nonlocal done
        done += images
        if progress:
            progress(done, total)

    first = embed(trained, by, folders[0], workers=workers, step=step)
    return first, embed(tested, by, folders[1], workers=workers, step=step)


def _read(out: Path) -> dict[str, Any]:
    stated = outputs.read_manifest(out, KIND).content["files"][RECORD]
    if not (out / RECORD).is_file() or sha256_file(out / RECORD) != stated:
        raise IntegrityError(f"{out / RECORD} is not what was written: add --overwrite to replace it")
    return read_overlap(out)
