"""Regions from files: every kind of file, names of images, joined scores, corrupt files, and flat memory."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool, write_pool
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.regions import readers
from pseudo_labels.regions.masks import decode, encode, from_box
from pseudo_labels.regions.readers import ImageNames, TableSource, json_records, records_of, seagull_100w
from pseudo_labels.regions.sources import Proposal

ROOT = Path(__file__).parents[3]
ADDRESSES = ("/set/Ref.Images/bear.png", "/set/Dist.Images/Blur/Blur_0/bear.png", "/set/Ref.Images/fox.jpg")
MASK = np.zeros((8, 10), bool)
MASK[2:5, 3:9] = True
RLE = {"size": [8, 10], "counts": encode(MASK)}
RECORD = {"image": "fox.jpg", "rle": RLE, "quality": 0.25, "importance": 0.5, "severity": 1, "type": "blur"}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    refs = [ImageRef(f"{n}" * 24, uri, f"{n}" * 64, height=8, width=10) for n, uri in enumerate(ADDRESSES)]
    return write_pool(tmp_path_factory.mktemp("pool") / "pool", refs, spec={"made": "by hand"})


def proposals(source: TableSource, pool: Pool, tmp_path: Path) -> list[list[Proposal]]:
    with source.opened(pool.ok(), tmp_path):
        rows = [list(source.propose(ref, None)) for ref in pool]
    assert not list(tmp_path.glob("*.sqlite*"))
    return rows


def flat(record: dict[str, Any]) -> dict[str, Any]:
    return {key: json.dumps(value) if isinstance(value, dict | list) else value for key, value in record.items()}


def save(path: Path, records: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, sorted({key for record in records for key in record}))
            writer.writeheader()
            writer.writerows(map(flat, records))
    elif path.suffix == ".parquet":
        # A column is taken from the first record: a field that some lack stands in all.
        keys = {key: None for record in records for key in record}
        pq.write_table(pa.Table.from_pylist([{**keys, **flat(record)} for record in records]), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        path.write_text(json.dumps(records))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
def test_all_kinds_of_files_give_the_same_regions(pool: Pool, tmp_path: Path, suffix: str):
    boxed = {"image": "/set/Ref.Images/bear.png", "box": [1, 2, 3, 4], "level": "part"}
    path = save(tmp_path / f"regions{suffix}", [RECORD, boxed, {"image": "wolf.png", "box": [0, 0, 1, 1]}])
    source = TableSource(path)
    bear, copy, fox = proposals(source, pool, tmp_path)
    assert copy == []
    assert [(one.counts, one.level) for one in bear] == [(from_box([1, 2, 3, 4], 8, 10), "part")]
    assert [(one.counts, one.quality, one.importance, one.severity, one.distortion) for one in fox] == [
        (RLE["counts"], 0.25, 0.5, 1.0, "blur")
    ]
    assert np.isnan(bear[0].quality)
    assert source.notes() == {"unmatched_records": 1, "unmatched_images": ["wolf.png"]}


FORMS = {
    "by name": {"fox.jpg": [{"box": [1, 2, 3, 4]}, {"box": [0, 0, 2, 2]}]},
    "boxes": {"fox.jpg": [[1, 2, 3, 4], [0, 0, 2, 2]]},
    "one box": {"fox.jpg": [1, 2, 3, 4]},
    "run lengths": {"fox.jpg": [RLE["counts"]]},
    "coco": {
        "images": [{"id": 7, "file_name": "fox.jpg", "width": 10}],
        "annotations": [{"image_id": 7, "bbox": [1, 2, 3, 4], "segmentation": []}],
    },
    "coco, in the other order": {
        "info": {},
        "annotations": [{"image_id": 7, "bbox": [0, 0, 1, 1], "segmentation": [[1, 1, 4, 1, 4, 4]]}],
        "images": [{"id": 7, "file_name": "fox.jpg"}],
    },
}


@pytest.mark.parametrize(
    ("form", "count"), list(zip(FORMS.values(), (2, 2, 1, 1, 1, 1), strict=True)), ids=FORMS.keys()
)
def test_forms_of_json(pool: Pool, tmp_path: Path, form: Any, count: int):
    (tmp_path / "regions.json").write_text(json.dumps(form))
    fox = proposals(TableSource(tmp_path / "regions.json"), pool, tmp_path)[2]
    assert [one.status for one in fox] == [Status.OK] * count


def test_names_of_fields_and_the_way_to_the_records_are_options(pool: Pool, tmp_path: Path):
    record = {"file": {"name": "fox.jpg"}, "seg": RLE, "mos": 80}
    (tmp_path / "a.json").write_text(json.dumps({"meta": {"n": 1}, "data": {"list": [record]}}))
    names = {"image": "file.name", "rle": "seg", "quality": "mos"}
    source = TableSource(tmp_path / "a.json", names=names, path="data.list", low=0, high=100)
    assert [(one.counts, one.quality) for one in proposals(source, pool, tmp_path)[2]] == [(RLE["counts"], 0.8)]
    with pytest.raises(PocketiqaError, match=r"unknown fields mask: known are box"):
        TableSource(tmp_path / "a.json", names={"mask": "seg"})
    with pytest.raises(PocketiqaError, match="no list or object at 'elsewhere'"):
        list(records_of(tmp_path / "a.json", "elsewhere"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rle": {"size": [9, 10], "counts": RLE["counts"]}}, "the mask is 10x9, but the image 10x8"),
        ({"rle": {"size": [8, 10], "counts": encode(np.ones((3, 3), bool))}}, "cover 9 pixels"),
        ({"rle": "{broken"}, "the mask is no JSON"),
        ({"rle": None, "box": [20, 20, 3, 3]}, "outside the image"),
        ({"rle": None, "box": "1 2 x 4"}, "is no box"),
        ({"rle": None}, "no 'rle', 'box' or x, y"),
        ({"quality": 3}, "quality is 3, outside 0 to 1"),
        ({"importance": "high"}, "importance is 'high', but must be a number"),
        ({"level": "atom"}, "level is 'atom'"),
    ],
)
def test_a_bad_record_is_refused_alone_with_its_reason(pool: Pool, tmp_path: Path, change: dict[str, Any], words: str):
    path = save(tmp_path / "regions.json", [{**RECORD, **change}, RECORD])
    bad, good = proposals(TableSource(path), pool, tmp_path)[2]
    assert words in bad.reason
    assert bad.status != Status.OK
    assert good.status == Status.OK


def test_scores_of_a_second_file_are_joined_by_id_or_by_order(pool: Pool, tmp_path: Path):
    boxes = [{"image": "fox.jpg", "box": [n, 0, 2, 2], "region": f"r{n}"} for n in range(3)]
    scores = [{"image": "fox.jpg", "quality": n / 4, "region": f"r{n}"} for n in (2, 0)]
    masks, second = save(tmp_path / "masks.json", boxes), save(tmp_path / "scores.json", scores)
    by_id = proposals(TableSource(masks, scores=second), pool, tmp_path)[2]
    assert [one.quality for one in by_id] == pytest.approx([0, np.nan, 0.5], nan_ok=True)
    other = {"region": "id of the region"}
    save(second, [{"image": "fox.jpg", "quality": n / 4} for n in range(3)])
    by_order = proposals(TableSource(masks, scores=second, names=other), pool, tmp_path)[2]
    assert [one.quality for one in by_order] == [0, 0.25, 0.5]
    save(second, [{"image": "fox.jpg", "quality": 1}])
    with pytest.raises(PocketiqaError, match="3 masks, but 1 scores"):
        proposals(TableSource(masks, scores=second, names=other), pool, tmp_path)


def test_masks_of_seagull_s_references_belong_to_their_copies_too(pool: Pool, tmp_path: Path):
    labels = tmp_path / "Labels"
    labels.mkdir()
    save(labels / "SEAGULL-100w_mask-based-rois.json", [{"image": "bear.png", "rle": RLE, "region": 1}])
    scores = [{"image": "Blur/Blur_0/bear.png", "quality": 0.3, "region": 1}]
    save(labels / "SEAGULL-100w_scores.json", scores)
    bear, copy, fox = proposals(seagull_100w(tmp_path), pool, tmp_path)
    assert [one.counts for one in bear] == [one.counts for one in copy] == [RLE["counts"]]
    assert copy[0].quality == 0.3
    assert np.isnan(bear[0].quality)
    assert fox == []
    assert seagull_100w(labels, by_name=False).spec()["by_name"] is False
    with pytest.raises(PocketiqaError, match="has no Labels/SEAGULL-100w"):
        seagull_100w(tmp_path / "elsewhere")


def test_a_name_that_fits_two_images_finds_none(pool: Pool):
    names = ImageNames(pool.ok())
    bear, copy, fox = (ref.id for ref in pool)
    assert names.find("bear.png") is None
    assert names.find("Ref.Images/bear.png") == bear
    assert names.find("Blur_0\\bear.png") == copy
    assert names.find("fox") == names.find("fox.png") == names.find(fox) == fox
    assert names.find("") is names.find("/") is names.find("other/fax.jpg") is None


@pytest.mark.parametrize("text", ['[{"image": "a", "box": [1, 2', "[1, 2]", "nothing", "", '[{"image": NaN}]', "[3]"])
def test_a_corrupt_file_is_an_error_that_counts_its_records(pool: Pool, tmp_path: Path, text: str):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(PocketiqaError, match=r"a\.json.*(corrupt|holds|no list)"):
        proposals(TableSource(tmp_path / "a.json"), pool, tmp_path)
    assert not list(tmp_path.glob("*.sqlite*"))
    lines = [json.dumps(RECORD), json.dumps(RECORD), '{"image": ']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(PocketiqaError, match="behind its first 2 records"):
        list(records_of(tmp_path / "a.jsonl"))


def test_a_fault_of_json_is_named_with_the_text_around_it(tmp_path: Path):
    (tmp_path / "a.json").write_text("[[1, 2, 3, 4], [NaN, 0, 1, 1]]")
    with pytest.raises(PocketiqaError, match=r"behind its first 1 record \(.*near '.*NaN.*write null\)"):
        list(records_of(tmp_path / "a.json"))
    (tmp_path / "a.json").write_text("[[1, 2, 3, 4], [5,")
    with pytest.raises(PocketiqaError, match=r"\(parse error: premature EOF\): fetch"):
        list(records_of(tmp_path / "a.json"))


def test_files_that_are_missing_or_of_another_kind_are_refused(tmp_path: Path):
    with pytest.raises(PocketiqaError, match="does not exist"):
        TableSource(tmp_path / "a.json")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(PocketiqaError, match=r"none of \.csv"):
        TableSource(tmp_path / "a.txt")
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(PocketiqaError, match="the smaller first"):
        TableSource(tmp_path / "a.csv", low=1, high=1)


class Endless:
    """A JSON list of so many bytes, made while it is read."""

    def __init__(self, size: int):
        counts = encode(np.random.default_rng(0).random((200, 200)) < 0.5)
        self._record = (json.dumps({"image": "fox.jpg", "rle": {"size": [200, 200], "counts": counts}}) + ",").encode()
        self._rest, self.made = b"[", 0
        self._size = size

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and self.made < self._size:
            self._rest += self._record
            self.made += len(self._record)
            if self.made >= self._size:
                self._rest = self._rest[:-1] + b"]"
        given, self._rest = self._rest[:size], self._rest[size:]
        return given


def stream(size: int) -> int:
    """Read a list of so many bytes; returns the number of records. Run as a program by the test below."""
    return sum(1 for _ in json_records(Endless(size), "", "image", "stream"))


@pytest.mark.parametrize("megabytes", [60])
def test_memory_does_not_grow_with_the_file(megabytes: int):
    program = f"""
import resource
from tests.pseudo_labels.regions.test_readers import stream
stream(2_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert stream({megabytes * 1_000_000}) > 1000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 20e6


def test_a_part_of_the_file_that_holds_all_records_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(readers, "MOST_VALUES", 50)
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"image": "a", "box": [1, 2, 3, 4]}] * 20}))
    with pytest.raises(PocketiqaError, match=r"more than 50 values.*say with path="):
        list(records_of(tmp_path / "a.json"))
    assert len(list(records_of(tmp_path / "a.json", "data"))) == 20


def test_run_lengths_may_be_bytes(pool: Pool, tmp_path: Path):
    pq.write_table(pa.table({"image": ["fox.jpg"], "rle": [RLE["counts"].encode()]}), tmp_path / "a.parquet")
    assert [one.counts for one in proposals(TableSource(tmp_path / "a.parquet"), pool, tmp_path)[2]] == [RLE["counts"]]


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_what_is_nested_without_end_is_refused(tmp_path: Path, suffix: str):
    record = '{"image": "a", "rle": ' + "[" * 200_000 + "]" * 200_000 + "}"
    (tmp_path / f"a.{suffix}").write_text(f"[{record}]" if suffix == "json" else record)
    with pytest.raises(PocketiqaError, match=r"deep|corrupt from its beginning"):
        list(records_of(tmp_path / f"a.{suffix}"))


def test_masks_of_records_are_those_of_the_file(pool: Pool, tmp_path: Path):
    fox = proposals(TableSource(save(tmp_path / "a.json", [RECORD])), pool, tmp_path)[2]
    assert np.array_equal(decode(fox[0].counts, 8, 10), MASK)
