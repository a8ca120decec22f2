"""The same few images as a folder, a tar, a Parquet file and a saved dataset."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.encoders import encode, picture

IMAGES = [encode(picture(seed, 64, 64), "PNG") for seed in range(7)]


def write_files(folder: Path, names: Iterable[str]) -> None:
    """The images under these names, as many as there are names."""
    for name, data in zip(names, IMAGES, strict=False):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def write_parquet(path: Path, column: pa.Array, name: str = "image", rows_in_group: int = 3) -> None:
    labels = pa.array([str(row) for row in range(len(column))])
    pq.write_table(pa.table({"label": labels, name: column}), path, row_group_size=rows_in_group)


def structs(images: Iterable[bytes] = IMAGES) -> pa.Array:
    """A column as ``datasets.Image`` stores it."""
    return pa.array([{"bytes": image, "path": "a.png"} for image in images])


def dataset(images: Iterable[bytes] = IMAGES) -> datasets.Dataset:
    rows = [{"bytes": image, "path": None} for image in images]
    return datasets.Dataset.from_dict({"image": rows}).cast_column("image", datasets.Image())


def write_all_kinds(folder: Path) -> list[str]:
    """The images as each kind of source; returns the four sources."""
    names = [f"{number}.png" for number in range(len(IMAGES))]
    write_files(folder / "files", names)
    write_tar(folder / "s.tar", zip(names, IMAGES, strict=True))
    write_parquet(folder / "t.parquet", structs())
    dataset().save_to_disk(folder / "saved")
    return [str(folder / name) for name in ("files", "s.tar", "t.parquet", "saved")]
