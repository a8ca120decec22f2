"""Looks for every tested image among the trained ones, and writes what was found into one folder."""

from pathlib import Path
from typing import Any

from distill.leakage.compare import as_record, compare
from distill.leakage.embeddings import Embeddings, described
from distill.leakage.extractor import FeatureExtractor, extraction_threads
from distill.leakage.image_sets import ImageSet
from distill.leakage.neighbours import NotComparableError, check_above
from distill.leakage.page import PAGE, overlap_page
from distill.leakage.record import FORMAT, KIND, RECORD, read_overlap
from distill.leakage.tables import GROUPS, SPLIT, write_groups, write_split
from pseudo_labels import outputs
from pseudo_labels.defaults import NEAR_DUPLICATE_COSINE
from pseudo_labels.errors import IntegrityError, OutputConflictError, PocketiqaError
from pseudo_labels.files import canonical_json, sha256_file, write_atomic
from pseudo_labels.parallel import Progress

VALIDATION = 0.15
_FEWEST = 2


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
    kept: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Find the nearest trained image of every tested one; a folder of the same inputs and settings is read instead.

    Writes ``overlap.json``, ``groups.csv`` (every image with its scene), ``split.csv`` (where the trained images are
    files with scores: a benchmark to learn from that shows no scene of a tested image) and ``overlap.html``. Features
    are kept beside them, for other settings too.

    Args:
        trained: what was learned from.
        tested: what models are judged by.
        by: describes the images.
        out: folder.
        above: cosine above which two images are near, in (-1, 1].
        validation: share of ``split.csv`` that becomes its validation part, of the images that can be learned from.
        seed: of that draw, and of intervals.
        workers: images decoded ahead at a time.
        threads: of the CPU for a teacher, backbone or student folder.
        overwrite: make it anew, also where ``out`` holds what was found with other inputs or settings.
        kept: folder of the trained images' features, for several comparisons with the same ones; in ``out`` if None.
        progress: called with images described and in total.

    Returns:
        The content of ``overlap.json``, see ``compare.as_record``.

    Raises:
        PocketiqaError: a threshold or share out of range.
        NotComparableError: too few images that can be compared.
        OutputConflictError: ``out`` holds something else.
    """
    check_above(above)
    _check(validation, trained, tested)
    spec = {
        "trained": trained.digest, "tested": tested.digest, "by": by.as_dict(), "above": above,
        "validation": validation, "seed": seed, "version": FORMAT,
    }  # fmt: skip
    if _claim(out, spec, overwrite) is not outputs.Claim.DONE:
        with extraction_threads(by, threads):
            sides = _extracted(
                trained, tested, by, (kept or out / "features-trained", out / "features-tested"), workers, progress
            )
        found = compare((trained.name, tested.name), *sides, above)
        record = as_record(found, trained, tested, by, seed=seed)
        write_groups(found, out / GROUPS)
        record["split"] = write_split(found, out / SPLIT, validation=validation, seed=seed)
        write_atomic(out / PAGE, overlap_page(record, found).encode())
        write_atomic(out / RECORD, canonical_json(record))
        files = [name for name in (RECORD, GROUPS, SPLIT, PAGE) if (out / name).is_file()]
        outputs.finish(out, {"files": {name: sha256_file(out / name) for name in files}})
    return _read(out)


def _check(validation: float, trained: ImageSet, tested: ImageSet) -> None:
    if not 0 < validation < 1:
        raise PocketiqaError(f"validation is {validation:g}: give a share above 0 and below 1, such as {VALIDATION}")
    for side in (trained, tested):
        if len(side.images) < _FEWEST:
            raise NotComparableError(
                f"{side.name} has {len(side.images)} images to compare: at least {_FEWEST} are needed; name another "
                "pool, benchmark or split"
            )


def _claim(out: Path, spec: dict[str, Any], overwrite: bool) -> outputs.Claim:
    """What is in the folder; made anew it keeps its features, which know themselves what they are of."""
    try:
        found = outputs.claim(out, KIND, spec)
    except OutputConflictError:
        ours = (out / outputs.MANIFEST).is_file() and outputs.read_manifest(out).kind == KIND
        if not overwrite or not ours:
            raise
        found = outputs.Claim.RESUME
    if overwrite and found is not outputs.Claim.NEW:
        outputs.write_manifest(out, outputs.Manifest(KIND, spec))
        return outputs.Claim.RESUME
    return found


def _extracted(
    trained: ImageSet,
    tested: ImageSet,
    by: FeatureExtractor,
    folders: tuple[Path, Path],
    workers: int,
    progress: Progress | None,
) -> tuple[Embeddings, Embeddings]:
    done, total = 0, len(trained.images) + len(tested.images)

    def step(images: int) -> None:
        nonlocal done
        done += images
        if progress:
            progress(done, total)

    first = described(trained, by, folders[0], workers=workers, step=step)
    return first, described(tested, by, folders[1], workers=workers, step=step)


def _read(out: Path) -> dict[str, Any]:
    stated = outputs.read_manifest(out, KIND).content["files"][RECORD]
    if not (out / RECORD).is_file() or sha256_file(out / RECORD) != stated:
        raise IntegrityError(f"{out / RECORD} is not what was written: add --overwrite to make it anew")
    return read_overlap(out)
