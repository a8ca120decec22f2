"""``overlap.json``, the result of a comparison for every test image, and its use in an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.evaluation.benchmarks import Benchmark
from distill.evaluation.evaluate import ALL, CLEAN
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import read_record

FORMAT = 1
KIND = "overlap"
RECORD = "overlap.json"
ALL_IMAGES = "all images"
WITHOUT_NEAR = "without near duplicates"
# On disk, in the words of the first version.
_WITHOUT_NEAR = "without near ones, found or marked"


def read_overlap(path: Path) -> dict[str, Any]:
    """The result of ``pocketiqa overlap``.

    Args:
        path: path of ``overlap.json``, or of its folder.

    Raises:
        PocketiqaError: the file does not exist, or is something else.
        IntegrityError: it was altered.
    """
    path = path / RECORD if path.is_dir() else path
    record = read_record(path, what="overlap (pocketiqa overlap writes it)")
    if not isinstance(record, dict) or record.get("kind") != KIND or record.get("format") != FORMAT:
        raise PocketiqaError(f"{path} is no {RECORD} of format {FORMAT}: make one with pocketiqa overlap")
    return record


def with_near_duplicates(benchmark: Benchmark, record: Mapping[str, Any]) -> Benchmark:
    """The benchmark with near duplicates marked, beside those that it marks itself: headline figures omit both.

    Args:
        benchmark: benchmark whose rows models are evaluated on.
        record: result of ``read_overlap``.

    Raises:
        PocketiqaError: the record does not cover all rows.
    """
    is_near_duplicate = {image["id"]: image["near"] for image in record["images"]}
    absent = [row.id for row in benchmark.rows if row.id not in is_near_duplicate]
    if absent:
        raise PocketiqaError(
            f"{RECORD} does not contain {len(absent)} of {len(benchmark.rows)} images of {benchmark.name}, such as "
            f"{absent[0]!r}: run pocketiqa overlap on the same benchmark and split"
        )
    # Not ``near_training``: figures without the images that the benchmark marks itself stay comparable with papers.
    rows = tuple(replace(row, near_duplicate=is_near_duplicate[row.id]) for row in benchmark.rows)
    return replace(benchmark, rows=rows, notes=(*benchmark.notes, in_words(record)))


def in_words(record: Mapping[str, Any]) -> str:
    """How many images are near duplicates, and by which feature and threshold, in a sentence."""
    by, trained = record["by"], record["trained"]
    return (
        f"{record['near']} of {record['tested']['compared']} images are near duplicates of one of "
        f"{trained['compared']} trained ones ({trained['name']}) by feature {by['feature']!r} of {by['name']} (cosine "
        f"above {record['above']:g})"
    )


def facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the record that an evaluation stores, as JSON values: all but the single images."""
    stored = {key: record[key] for key in ("by", "above", "near", "trained", "tested", "copying_reason")}
    return stored | {"copying": None if record["copying"] is None else copied(record["copying"])}


def copied(copying: Mapping[str, Any]) -> dict[str, Any]:
    """SRCC of copying the score of the nearest trained image.

    Args:
        copying: result of ``evaluate`` for the copied scores.

    Returns:
        ``n`` and ``srcc`` with its interval, by a description of the images: all, those without near duplicates, and
        each subset of all.
    """
    selections = copying["models"][0]["selections"]
    srcc_of = {ALL_IMAGES: _srcc(selections[ALL])}
    if CLEAN in selections:
        srcc_of[_WITHOUT_NEAR] = _srcc(selections[CLEAN])
    return srcc_of | {f"{name}, all": _srcc(part) for name, part in selections[ALL].get("subsets", {}).items()}


def images_in_words(name: str) -> str:
    """A key of ``copied`` as people read it."""
    return WITHOUT_NEAR if name == _WITHOUT_NEAR else name


def _srcc(selection: Mapping[str, Any]) -> dict[str, Any]:
    return {"n": selection["n"], "srcc": selection["metrics"]["srcc"]}


def closest(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The test images that were compared, the one with the highest cosine first."""
    compared = (image for image in record["images"] if image["cosine"] is not None)
    return sorted(compared, key=lambda image: -image["cosine"])


def closest_scenes(record: Mapping[str, Any], most: int) -> list[Mapping[str, Any]]:
    """The closest pair of each scene, for a few pictures: one scene shot many times must not fill them all."""
    # The first pair of a scene in this order is its closest one.
    best: dict[str, Mapping[str, Any]] = {}
    for image in closest(record):
        best.setdefault(image["scene"], image)
    return list(best.values())[:most]
