"""Photographs with scores, and with ratings where there are any: scored now, or read from what `score` wrote."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.evaluation.benchmarks import Benchmark, load_benchmark, names_benchmark
from distill.evaluation.benchmarks.registry import rated_spec
from distill.evaluation.benchmarks.tables import number, read_csv
from distill.scoring.inputs import ImageSource
from distill.scoring.resuming import RowRecord, resumed_rows
from distill.terminal import console
from pseudo_labels.errors import PocketiqaError, shown
from pseudo_labels.files import from_utf8_path, read_lines, read_record
from pseudo_labels.images import DecodeLimits
from pseudo_labels.parallel import Progress
from pseudo_labels.records import Status
from students.meaning.model_record import ModelName
from students.runtime import Row, Scorer

_IMAGES = ("path", "image", "image_name", "name")


@dataclass(frozen=True)
class Rated:
    """Photographs that have a score and a rating.

    Attributes:
        scores: float64 [N] in [0, 1].
        ratings: float64 [N] in [0, 1], 1 best.
        groups: name of the scene of each photograph, distinct between data sets.
        parts: data set and subset of each photograph, for people.
        left_out: rated photographs without a score.
    """

    scores: NDArray[np.float64]
    ratings: NDArray[np.float64]
    groups: list[str]
    parts: list[str]
    left_out: int


@dataclass(frozen=True)
class StoredScores:
    """Scores that `pocketiqa score` wrote.

    Attributes:
        of_path: score by absolute path; photographs without a score are not there.
        models: SHA-256 of the models that scored; empty where the file does not say it.
        path: the file.
    """

    of_path: Mapping[str, float]
    models: frozenset[str]
    path: Path

    def check_model(self, model: ModelName) -> None:
        """Refuse scores of another model.

        Raises:
            PocketiqaError: the file names another model, or several.
        """
        if self.models - {model.sha256}:
            others = ", ".join(f"{one[:12]}..." for one in sorted(self.models))
            raise PocketiqaError(
                f"the scores in {self.path} are of model {others}, and not of {model}: name the model with --model, or "
                "score the photographs with it"
            )


def rated_set(text: str, scale: str | None = None) -> Benchmark:
    """What may be learned from of a rated set: its train part, or all of one without parts.

    Args:
        text: ``NAME:FOLDER`` as for `evaluate`, or the path of a CSV file.
        scale: of the ratings of a CSV file, such as ``1:5``.

    Raises:
        PocketiqaError: no such data set, or it has parts but none for training.
    """
    return load_benchmark(rated_spec(text, scale)).usual("train")


def set_name(text: str, benchmark: Benchmark) -> str:
    """Name of a data set for people: that of its folder or file, which tells two of one benchmark apart."""
    path = text.partition(":")[2] if names_benchmark(text) else text
    return Path(path.rpartition("?")[0] or path).stem or benchmark.name


def csv_file(text: str) -> Path | None:
    """The CSV file of a rated set; None if it is a benchmark of another kind."""
    if not names_benchmark(text):
        return Path(text)
    kind, _, path = text.partition(":")
    return Path(path.rpartition("?")[0] or path) if kind == "csv" else None


def with_scores(names: Sequence[str], sets: Sequence[Benchmark], of_path: Mapping[str, float]) -> Rated:
    """The rated photographs that have a score.

    Args:
        names: of the data sets.
        sets: data sets.
        of_path: score by absolute path.

    Raises:
        PocketiqaError: none has a score.
    """
    scores, ratings, groups, parts, left_out = [], [], [], [], 0
    for name, rated in zip(names, sets, strict=True):
        for row in rated.rows:
            score = of_path.get(os.path.abspath(row.path))
            if score is None:
                left_out += 1
                continue
            scores.append(score)
            ratings.append(row.score)
            groups.append(f"{name}\n{row.group}")
            parts.append(f"{name} {row.subset}".rstrip())
    if not scores:
        example = sets[0].rows[0].path
        raise PocketiqaError(
            f"none of the {left_out} rated photographs has a score, such as {example}: check that the paths are right"
        )
    return Rated(np.array(scores), np.array(ratings), groups, parts, left_out)


def own_scores(path: Path) -> StoredScores | None:
    """The column ``score`` of a CSV file of ratings; None if it has none.

    Raises:
        PocketiqaError: see ``read_scores``.
    """
    table = read_csv(path, ["mos"], ["score"])
    return read_scores(path, beside=True) if table and "score" in table[0] else None


def read_scores(path: Path, *, beside: bool = False) -> StoredScores:
    """Scores of a file that `pocketiqa score --out` wrote, or of any CSV file with the columns path and score.

    Relative paths start where the command is called, as those of `score` do, or at the folder of the file.

    Args:
        path: .csv, .json or .jsonl.
        beside: relative paths start at the folder of the file, as those of ratings do.

    Raises:
        PocketiqaError: another kind of file, columns that are missing, or a score outside [0, 1].
    """
    of_path: dict[str, float] = {}
    models: set[str] = set()
    for position, row in enumerate(_rows(path)):
        if row.get("model_sha256"):
            models.add(str(row["model_sha256"]))
        # Rows of regions have no score, and repeat the path of their image.
        if row.get("score") in (None, "") or row.get("status", Status.OK) not in ("", Status.OK):
            continue
        value = number(row, "score", path=path, position=position)
        if not 0 <= value <= 1:
            raise PocketiqaError(f"{path}, data row {position + 1}: score {value:g} lies outside 0 to 1")
        of_path[_absolute(path, str(row["path"]), beside)] = value
    if not of_path:
        raise PocketiqaError(f"no photograph has a score in {path}: score them with `pocketiqa score --out FILE`")
    return StoredScores(of_path, frozenset(models), path)


def _rows(path: Path) -> Iterable[Mapping[str, Any]]:
    ending = path.suffix.lower()
    if ending in (".json", ".jsonl"):
        what = "scores"
        rows = read_lines(path, what=what) if ending == ".jsonl" else read_record(path, what=what)
        rows = rows["rows"] if isinstance(rows, dict) and isinstance(rows.get("rows"), list) else rows
        good = isinstance(rows, list) and all(isinstance(row, dict) and {"path", "score"} <= set(row) for row in rows)
        if not good:
            raise PocketiqaError(f"{path} holds no rows with path and score: is it what `pocketiqa score` wrote?")
        return ({**row, "score": json.dumps(row["score"]) if row["score"] is not None else ""} for row in rows)
    if ending not in (".csv", ".txt", ".tsv"):
        raise PocketiqaError(f"scores are read from .csv, .json and .jsonl, and {path} is none of them")
    table = read_csv(path, ["score"], [*_IMAGES, "status", "model_sha256"])
    column = next((name for name in _IMAGES if table and name in table[0]), None)
    if column is None:
        raise PocketiqaError(f"{path} has none of the columns {', '.join(_IMAGES)} that name the images")
    return ({**row, "path": row[column]} for row in table)


def _absolute(file: Path, path: str, beside: bool) -> str:
    local = from_utf8_path(path)
    return os.path.abspath(local if not beside and os.path.exists(local) else file.parent / local)


def score_files(
    images: Sequence[ImageSource],
    scorer: Scorer,
    *,
    out: Path,
    limits: DecodeLimits,
    workers: int,
    overwrite: bool,
    report: Progress,
) -> Iterator[Row]:
    """Score images, or take the rows that a killed run of the same command left; the caller holds ``out``.

    Args:
        images: images.
        scorer: model, with the same limits.
        out: file that the command writes; the record of the rows lies beside it while the work lasts.
        limits: of decoding.
        workers: images scored at a time.
        overwrite: ``out`` may exist; it is then made anew from the start.
        report: called with images done and in total.
    """
    record, left = RowRecord(out, scorer.digest, limits), False
    many = partial(scorer.score_many, read=ImageSource.content)
    try:
        record.start() if overwrite and out.exists() else record.resume()
        yield from resumed_rows(many, images, record, workers=workers, report=report, warn=console.warn)
    except KeyboardInterrupt:
        left = True
        raise
    finally:
        record.close(keep=left)


def scores_of(rows: Iterable[Row]) -> tuple[dict[str, float], list[Row]]:
    """Scores by absolute path, and the rows that have none."""
    of_path, bad = {}, []
    for row in rows:
        if row.score is None:
            bad.append(row)
        else:
            of_path[os.path.abspath(row.path)] = row.score
    return of_path, bad


def warn_of(bad: Sequence[Row]) -> None:
    """Say how many photographs have no score, with an example."""
    if bad:
        console.warn(f"{len(bad)} photographs have no score, such as {shown(bad[0].path)}: {shown(bad[0].reason)}")
