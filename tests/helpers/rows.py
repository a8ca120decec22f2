"""Rows that ``pocketiqa score`` wrote, read by other means than those that wrote them."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pseudo_labels.files import read_record


def read_rows(path: Path, file_format: str) -> list[dict[str, Any]]:
    """The records of a file in one of the formats that programs read."""
    if file_format == "csv":
        with open(path, newline="", encoding="utf-8") as file:
            return [dict(row) for row in csv.DictReader(file)]
    if file_format == "jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    if file_format == "json":
        return read_record(path, what="scores")["rows"]
    return pq.read_table(path).to_pylist()
