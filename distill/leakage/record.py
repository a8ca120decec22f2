"""``overlap.json``: what was found about every tested image; and the same told to an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.evaluation.benchmarks import Benchmark
from distill.evaluation.evaluate import ALL, CLEAN
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import read_json

FORMAT = 1
KIND = "overlap"
RECORD = "overlap.json"
ALL_IMAGES = "all images"


def read_overlap(path: Path) -> dict[str, Any]:
    """What ``pocketiqa overlap`` found.

    Args:
        path: of ``overlap.json``, or of its folder.

    Raises:
        PocketiqaError: it is not there, or something else.
    """
    path = path / RECORD if path.is_dir() else path
    record = read_json(path, what="overlap (pocketiqa overlap writes it)")
    if not isinstance(record, dict) or record.get("kind") != KIND or record.get("format") != FORMAT:
        raise PocketiqaError(f"{path} is no {RECORD} of format {FORMAT}: make one with pocketiqa overlap")
    return record


def with_near_duplicates(benchmark: Benchmark, record: Mapping[str, Any]) -> Benchmark:
    """The same benchmark with the near images marked, beside those that it marks itself: headline figures omit them.

    Args:
        benchmark: the rows that models are judged by.
        record: of ``read_overlap``.

    Raises:
        PocketiqaError: some of the rows were not looked at.
    """
    near = {image["id"]: image["near"] for image in record["images"]}
    strange = [row.id for row in benchmark.rows if row.id not in near]
    if strange:
        raise PocketiqaError(
            f"{RECORD} says nothing of {len(strange)} of {len(benchmark.rows)} images of {benchmark.name}, such as "
            f"{strange[0]!r}: run pocketiqa overlap on the same benchmark and split"
        )
    rows = tuple(replace(row, near_duplicate=near[row.id]) for row in benchmark.rows)
    return replace(benchmark, rows=rows, notes=(*benchmark.notes, in_words(record)))


def in_words(record: Mapping[str, Any]) -> str:
    """How many images are near, and by what, in a sentence."""
    by, trained = record["by"], record["trained"]
    return (
        f"{record['near']} of {record['tested']['compared']} images are near one of {trained['compared']} trained ones "
        f"({trained['name']}) by feature {by['feature']!r} of {by['name']} (cosine above {record['above']:g})"
    )


def facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """What an evaluation keeps of it, as JSON values: all but the single images."""
    kept = {key: record[key] for key in ("by", "above", "near", "trained", "tested", "copying_reason")}
    return kept | {"copying": None if record["copying"] is None else copied(record["copying"])}


def copied(copying: Mapping[str, Any]) -> dict[str, Any]:
    """SRCC of copying the score of the nearest trained image.

    Args:
        copying: result of ``evaluate``.

    Returns:
        ``n`` and ``srcc`` with its interval, by words for the images: all, those that are not near, and each subset of
        all.
    """
    selections = copying["models"][0]["selections"]
    found = {ALL_IMAGES: _srcc(selections[ALL])}
    if CLEAN in selections:
        found["without near ones, found or marked"] = _srcc(selections[CLEAN])
    return found | {f"{name}, all": _srcc(part) for name, part in selections[ALL].get("subsets", {}).items()}


def _srcc(selection: Mapping[str, Any]) -> dict[str, Any]:
    return {"n": selection["n"], "srcc": selection["metrics"]["srcc"]}


def closest(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The tested images that were compared, the one with the nearest neighbour first."""
    return sorted((one for one in record["images"] if one["cosine"] is not None), key=lambda one: -one["cosine"])


def closest_scenes(record: Mapping[str, Any], most: int) -> list[Mapping[str, Any]]:
    """The closest pair of each scene, for a few pictures: one scene shot many times must not fill them all."""
    best: dict[str, Mapping[str, Any]] = {}
    for one in closest(record):
        best.setdefault(one["scene"], one)
    return list(best.values())[:most]
