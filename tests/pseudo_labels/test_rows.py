"""Images in the rows of Parquet files and of saved datasets."""

import os
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pseudo_labels import addresses
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError
from pseudo_labels.records import Status
from pseudo_labels.sources import list_sources
from tests.helpers.containers import IMAGES, dataset, structs, write_files, write_parquet


def listed(source: Path) -> list[str]:
    return [entry.address for entry in list_sources([str(source)]).entries]


def read_all(source: Path) -> list[bytes]:
    return [addresses.read(address) for address in listed(source)]


def refused(source: Path) -> str:
    with pytest.raises(PocketiqaError) as caught:
        list_sources([str(source)])
    return str(caught.value)


# --- Parquet


@pytest.mark.parametrize("column", ["image", "picture"])
@pytest.mark.parametrize("kind", ["struct", "binary", "large_binary"])
def test_parquet_rows_give_the_bytes(tmp_path: Path, kind: str, column: str) -> None:
    values = structs() if kind == "struct" else pa.array(IMAGES, getattr(pa, kind)())
    write_parquet(tmp_path / "t.parquet", values, column)
    rows = listed(tmp_path / "t.parquet")
    assert rows == [f"parquet://{tmp_path}/t.parquet#{row}" for row in range(7)]
    assert [addresses.read(address) for address in rows] == IMAGES
    assert addresses.read(rows[5]) == IMAGES[5]  # at random, over row groups
    assert addresses.read(rows[0]) == IMAGES[0]


def test_parquet_columns_that_leave_a_doubt_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array(IMAGES), "b": structs()}), tmp_path / "two.parquet")
    message = refused(tmp_path / "two.parquet")
    assert "2 columns that can hold images (a, b)" in message
    assert "name the one to use 'image'" in message
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "none.parquet")
    assert "no column with image bytes" in refused(tmp_path / "none.parquet")
    pq.write_table(pa.table({"mask": pa.array(IMAGES), "image": structs()}), tmp_path / "named.parquet")
    assert read_all(tmp_path / "named.parquet") == IMAGES
    (tmp_path / "false.parquet").write_text("PAR1, but not really")
    assert "false.parquet" in refused(tmp_path / "false.parquet")
    os.mkfifo(tmp_path / "pipe.parquet")
    assert "not a regular file" in refused(tmp_path / "pipe.parquet")


def test_parquet_rows_without_bytes_are_rows(tmp_path: Path) -> None:
    write_files(tmp_path, ["a.png"])
    values = pa.array([{"bytes": None, "path": str(tmp_path / "a.png")}, {"bytes": b"", "path": None}, None])
    write_parquet(tmp_path / "t.parquet", values)
    seen = []
    for address in listed(tmp_path / "t.parquet"):
        with pytest.raises(ImageError) as caught:
            addresses.read(address)
        seen.append(caught.value.status)
    assert seen == [Status.MISSING, Status.EMPTY, Status.MISSING]


def test_a_changed_parquet_is_not_served_from_memory(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_parquet(path, pa.array(IMAGES[:3]))
    rows = listed(path)
    assert addresses.read(rows[2]) == IMAGES[2]
    write_parquet(path, pa.array(IMAGES[5:]))
    assert addresses.read(rows[1]) == IMAGES[6]
    with pytest.raises(ImageError, match="no row 2: the table has 2 rows"):
        addresses.read(rows[2])
    path.unlink()
    with pytest.raises(ImageError, match="no such file"):
        addresses.read(rows[0])


# --- Hugging Face datasets on disk


def test_saved_dataset_and_its_splits(tmp_path: Path) -> None:
    dataset().save_to_disk(tmp_path / "one")
    rows = listed(tmp_path / "one")
    assert rows == [f"dataset://{tmp_path}/one#{row}" for row in range(7)]
    assert [addresses.read(address) for address in rows] == IMAGES
    splits = datasets.DatasetDict({"train": dataset().select([4, 2]), "test": dataset().select([6])})
    splits.save_to_disk(tmp_path / "dict")
    assert read_all(tmp_path / "dict") == [IMAGES[4], IMAGES[2], IMAGES[6]]
    assert read_all(tmp_path / "dict/test") == [IMAGES[6]]


def test_saved_dataset_embeds_files_named_by_path(tmp_path: Path) -> None:
    write_files(tmp_path, ["a.png", "b.png"])
    paths = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    datasets.Dataset.from_dict({"photo": paths}).cast_column("photo", datasets.Image()).save_to_disk(tmp_path / "saved")
    for path in paths:
        Path(path).unlink()
    assert read_all(tmp_path / "saved") == IMAGES[:2]


def test_broken_datasets_are_named(tmp_path: Path) -> None:
    dataset().save_to_disk(tmp_path / "one")
    (tmp_path / "one/data-00000-of-00001.arrow").write_bytes(b"broken")
    assert "one" in refused(tmp_path / "one")
    (tmp_path / "dict").mkdir()
    (tmp_path / "dict/dataset_dict.json").write_text("[]")
    assert "names no splits" in refused(tmp_path / "dict")


# --- columns of other types


def binary_types() -> list[tuple[pa.DataType, bool]]:
    """Each type, and whether it stands in a struct; Arrow cannot write views of bytes there."""
    plain = [pa.binary(), pa.large_binary()]
    kinds = [*plain, *(pa.dictionary(pa.int32(), kind) for kind in plain)]
    return [(pa.binary_view(), False), *((kind, in_struct) for kind in kinds for in_struct in (False, True))]


@pytest.mark.parametrize(("kind", "in_struct"), binary_types(), ids=str)
def test_every_kind_of_binary_column_is_read(tmp_path: Path, kind: pa.DataType, in_struct: bool) -> None:
    column = pa.array(IMAGES).dictionary_encode() if isinstance(kind, pa.DictionaryType) else pa.array(IMAGES)
    column = column.cast(kind)
    if in_struct:
        column = pa.StructArray.from_arrays([column, pa.array(["a.png"] * len(IMAGES))], ["bytes", "path"])
    checksums = pa.array([b"0123"] * len(IMAGES), pa.binary(4))
    pq.write_table(pa.table({"sha": checksums, "photo": column}), tmp_path / "t.parquet", row_group_size=3)
    assert read_all(tmp_path / "t.parquet") == IMAGES


NESTED = {
    "list": ([[{"bytes": image}] for image in IMAGES], "pictures[].bytes", "one image a row"),
    "list of binary": ([[image] for image in IMAGES], "pictures[]", "one image a row"),
    "struct": ([{"image": {"bytes": image}} for image in IMAGES], "pictures.image.bytes", "'pictures.image.bytes' as"),
    "struct of list": ([{"all": [{"bytes": image}]} for image in IMAGES], "pictures.all[].bytes", "one image a row"),
}


@pytest.mark.parametrize("case", NESTED)
def test_images_deeper_in_a_column_are_refused_with_the_way_to_them(tmp_path: Path, case: str) -> None:
    values, way, remedy = NESTED[case]
    pq.write_table(pa.table({"pictures": pa.array(values)}), tmp_path / "t.parquet")
    message = refused(tmp_path / "t.parquet")
    assert f"({way})" in message
    assert remedy in message
    assert "name the one to use" not in message


def test_a_preview_beside_lists_of_images_is_not_taken_for_the_image(tmp_path: Path) -> None:
    lists = pa.array([[{"bytes": image}] for image in IMAGES])
    pq.write_table(pa.table({"images": lists, "preview": pa.array(IMAGES)}), tmp_path / "t.parquet")
    assert "deeper in the column 'images'" in refused(tmp_path / "t.parquet")
    pq.write_table(pa.table({"masks": lists, "preview": pa.array(IMAGES)}), tmp_path / "t.parquet")
    assert read_all(tmp_path / "t.parquet") == IMAGES


def test_links_and_text_are_no_image_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": ["https://example.org/a.png"], "n": [1]}), tmp_path / "t.parquet")
    message = refused(tmp_path / "t.parquet")
    assert "no column with image bytes: embed the images" in message
    assert "image (string)" in message
