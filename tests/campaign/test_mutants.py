"""The short form of the campaign's mutants, and that the campaign notices what it looks for."""

import faulthandler
import io
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import read_record
from pseudo_labels.images import ImageError
from pseudo_labels.records import Status
from students.session import verify_checksum, with_checksum
from tests.campaign import reading
from tests.campaign.mutants import IMAGE_FORMATS, build_originals, change_json, mend_onnx, mend_png, mutants
from tests.campaign.reading import READERS, Reading, read_mutants, read_one
from tests.campaign.summary import as_markdown, summarised
from tests.helpers.campaign import kills as chosen
from tests.helpers.encoders import encode, picture

# Formats that torch, ONNX Runtime or `datasets` make take seconds to begin: they are left to the campaign.
QUICK = (*IMAGE_FORMATS, "tar", "Parquet", "rating table", "pool", "label store", "recipe", "record of score")


def test_mutants_are_read_or_refused_in_plain_words(tmp_path: Path):
    count = chosen(500, short=40)
    readings = read_mutants(tmp_path, count=count, seed=20, formats=() if count == 500 else QUICK)
    assert [one for one in readings if not one.as_promised] == []
    assert [one.number for one in readings] == list(range(count))
    assert {one.format for one in readings} >= set(QUICK) - {"HEIC"}
    assert {one.status for one in readings} >= {"ok", "rows", "refused", "corrupt"}
    assert max(one.cpu_s for one in readings) < reading.CPU_S
    # Nothing is read twice.
    before = (tmp_path / "readings.jsonl").read_bytes()
    assert read_mutants(tmp_path, count=count, seed=20, formats=QUICK) == readings
    assert (tmp_path / "readings.jsonl").read_bytes() == before


def test_the_originals_themselves_are_read(tmp_path: Path):
    for original in build_originals(tmp_path, QUICK):
        assert READERS[original.reader].read(original.folder / original.name) == "ok", original


def test_mutants_follow_from_their_seed_and_differ_from_their_original(tmp_path: Path):
    originals = build_originals(tmp_path, ("PNG", "GIF", "recipe"))
    first, again, other = ([one.data for one in mutants(originals, 60, seed)] for seed in (1, 1, 2))
    assert first == again
    assert sum(one == two for one, two in zip(first, other, strict=True)) < 3
    same = [one for one in mutants(originals, 60, 1) if one.data == (one.original.folder / one.file).read_bytes()]
    assert len(same) <= 3
    assert len({kind for one in mutants(originals, 300, 1) for kind in one.kinds}) == 13


def test_checksums_are_mended():
    data = encode(picture(1, 64, 64), "PNG")
    broken = data[:50] + bytes([data[50] ^ 1]) + data[51:]  # in the pixels
    assert mend_png(data) == data
    assert mend_png(broken) != broken
    # Pillow compares the CRC of each chunk in ``verify``.
    Image.open(io.BytesIO(mend_png(broken))).verify()
    with pytest.raises(SyntaxError):
        Image.open(io.BytesIO(broken)).verify()
    sealed = with_checksum(b"model" * 100)
    assert verify_checksum(mend_onnx(b"X" + sealed[1:]), "it")


def test_changed_json_has_a_right_checksum(tmp_path: Path):
    from tests.helpers.fusing import invented_pool

    manifest = invented_pool(tmp_path / "pool", rows=24, scenes=6).folder / "manifest.json"
    whole = manifest.read_bytes()
    as_made = read_record(manifest, what="it")
    changed = [change_json(whole, random.Random(seed)) for seed in range(40)]
    assert {kind for _, kind in changed} >= {
        "JSON: a value replaced",
        "JSON: a value removed",
        "JSON: nested 20,000 deep",
    }
    for data, kind in changed:
        if "nested" not in kind and b'"checksum"' in data:
            manifest.write_bytes(data)
            assert read_record(manifest, what="it") != as_made


def _says(error: BaseException) -> Callable[[Path], str]:
    def read(_: Path) -> str:
        raise error

    return read


def _ends(_: Path) -> str:
    faulthandler.disable()  # pytest's, which would print a page
    os.abort()


def _works(_: Path) -> str:
    while True:
        pass


def _sleeps(_: Path) -> str:
    time.sleep(60)
    return "ok"


def _fills(_: Path) -> str:
    return str(len(bytearray(5_000_000_000)))


def _chats(_: Path) -> str:
    os.write(2, b"libtiff: warning")
    return "ok"


@pytest.mark.parametrize(
    ("read", "status"),
    [
        (lambda _: "ok", "ok"),
        (_says(ImageError(Status.CORRUPT, "cut off")), "corrupt"),
        (_says(PocketiqaError("no table")), "refused"),
        (_says(PocketiqaError("x" * 5000)), "message"),
        (_says(PocketiqaError("")), "message"),
        (_says(KeyError("mos")), "exception"),
        (_says(RecursionError()), "exception"),
        (_fills, "memory limit"),
        (_ends, "crash"),
        (_works, "time limit"),
        (_sleeps, "time limit"),
        (_chats, "prints"),
    ],
)
def test_every_bad_end_is_noticed(
    read: Callable[[Path], str], status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reading, "CPU_S", 1)
    monkeypatch.setattr(reading, "WALL_S", 1.5 if read is _sleeps else 60)
    monkeypatch.setattr(reading, "MEMORY_MB", 2000)
    assert read_one(read, tmp_path)[0] == status


def test_the_summary_counts_and_says_what_is_not_as_promised():
    good = Reading(0, "PNG", "a.png", ("truncated",), "corrupt", "cut", 0.1, 2.0)
    read = Reading(1, "PNG", "a.png", ("bytes flipped",), "ok", "", 0.3, 9.0)
    bad = Reading(2, "tar", "a.tar", ("truncated",), "crash", "signal 11", 0.2, 5.0)
    summary = summarised([], [good, read, bad], {"seed": 3})
    assert (summary["seed"], summary["as_promised"]) == (3, False)
    assert [one["number"] for one in summary["not_as_promised"]] == [2]
    assert summarised([], [good, read], {})["as_promised"]
    table = as_markdown(json.loads(json.dumps(summary)))
    assert "| PNG | 2 | 1 | 1 (1 corrupt) | 0 | 0.30 | 9 |" in table
    assert "| tar | 1 | 0 | 0 | 1 | 0.20 | 5 |" in table
    assert "| **all** | 3 | 1 | 1 | 1 | 0.30 | 9 |" in table
