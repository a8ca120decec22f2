"""Small files of every accepted format, and seeded mutants of them.

A mutant of a format with checksums is mended every second time, so that what lies behind the check is reached as well:
whoever makes a file to do harm would do the same.
"""

import io
import json
import random
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import CHECKSUM, checksummed_json
from students.contract import CONTRACT_KEY
from students.session import CHECKSUM_BYTES, with_checksum
from tests.helpers.encoders import encode, exif_turn, picture, png, save, tiff_gray
from tests.helpers.profiles import DISPLAY_P3, SRGB_CURVE, matrix_profile, parametric_curve


@dataclass(frozen=True)
class Original:
    """A file, or a folder of files, that is read without complaint.

    Attributes:
        format: what it is; several originals may be of one.
        reader: see ``tests.campaign.reading.READERS``.
        name: of the file in its folder; empty where the folder itself is read.
        mutable: names of the files of which one is changed.
        folder: where it lies.
    """

    format: str
    reader: str
    name: str
    mutable: tuple[str, ...]
    folder: Path


@dataclass(frozen=True)
class Mutant:
    """A changed file.

    Attributes:
        original: of which it is a mutant.
        file: name of the file that was changed.
        kinds: what was done to it, in order.
        data: its bytes.
    """

    original: Original
    file: str
    kinds: tuple[str, ...]
    data: bytes


# -- what can happen to a file ----------------------------------------------------------------------------------------

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF)
_FILLS = (b"\0", b"\xff", b" ", b"9", b"\n")
_HEAD = 512


def _flip(data: bytearray, draw: random.Random, end: int) -> bytearray:
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        data[draw.randrange(end)] ^= draw.randrange(1, 256)
    return data


def _span(data: bytearray, draw: random.Random, longest: int = 4096) -> slice:
    start = draw.randrange(len(data))
    return slice(start, min(len(data), start + draw.randint(1, longest)))


def _insert(data: bytearray, draw: random.Random, inserted: bytes) -> bytearray:
    at = draw.choice((draw.randrange(len(data) + 1), draw.randrange(min(len(data), _HEAD) + 1)))
    data[at:at] = inserted
    return data


def _fill(data: bytearray, draw: random.Random) -> bytearray:
    span = _span(data, draw)
    data[span] = draw.choice(_FILLS) * (span.stop - span.start)
    return data


def _number(data: bytearray, draw: random.Random) -> bytearray:
    value, size = draw.choice(_EXTREMES), draw.choice((1, 2, 4, 8))
    at = draw.choice((draw.randrange(len(data)), draw.randrange(min(len(data), _HEAD))))
    order = draw.choice(("little", "big"))
    data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, order)  # type: ignore[arg-type]
    return data


def _delete(data: bytearray, draw: random.Random) -> bytearray:
    del data[_span(data, draw)]
    return data


def _repeat(data: bytearray, draw: random.Random) -> bytearray:
    span = _span(data, draw, 256)
    data[span] = bytes(data[span]) * draw.choice((2, 3, 100))
    return data


def _truncate(data: bytearray, draw: random.Random) -> bytearray:
    near_end = max(0, len(data) - draw.randint(1, 64))
    return data[: draw.choice((draw.randrange(len(data)), near_end, draw.randrange(min(len(data), _HEAD))))]


def change(data: bytes, draw: random.Random, other: bytes) -> tuple[bytes, str]:
    """A file with one change.

    Args:
        data: the file; at least one byte.
        draw: chooses the change.
        other: another file, of any format, for heads and tails.

    Returns:
        The changed bytes, and what was done.
    """
    end = draw.randint(1, min(64, len(other)))
    half = draw.randrange(len(other))
    changes: dict[str, Callable[[bytearray], bytearray]] = {
        "bytes flipped": lambda own: _flip(own, draw, len(own)),
        "bytes flipped in the head": lambda own: _flip(own, draw, min(len(own), _HEAD)),
        "truncated": lambda own: _truncate(own, draw),
        "random bytes inserted": lambda own: _insert(own, draw, draw.randbytes(draw.randint(1, 4096))),
        "equal bytes inserted": lambda own: _insert(own, draw, draw.choice(_FILLS) * draw.choice((1, 100, 100_000))),
        "a part deleted": lambda own: _delete(own, draw),
        "a part repeated": lambda own: _repeat(own, draw),
        "a part overwritten": lambda own: _fill(own, draw),
        "an extreme number": lambda own: _number(own, draw),
        "head of another format": lambda own: bytearray(other[:end]) + own[end:],
        "tail of another file": lambda own: own[: draw.randrange(len(own)) + 1] + bytearray(other[half:]),
    }
    kind = draw.choice(list(changes))
    return bytes(changes[kind](bytearray(data))), kind


# -- JSON, YAML and CSV: changed by their values, so that they stay readable ------------------------------------------

_DEEP = 20_000
_STRANGE: tuple[Any, ...] = (
    *(None, True, -1, 0, 1 << 62, 10**4000, -0.5, 1e308, "", "x", "x" * 100_000, "\0\x1b[2J\u202e", "\ud800"),
    *([], {}, [None], {"": {}}, [[[]]], ["a"] * 10_000, "../../etc/passwd", "9" * 5000, "nan"),
)


def change_json(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    """A JSON file with one value, key or list changed; its checksum, if it has one, is right."""
    record = json.loads(data)
    if draw.random() < 0.05:
        return b"[" * _DEEP + b"]" * _DEEP, "JSON: nested 20,000 deep"
    nodes = list(_nodes(record))
    holder, key = draw.choice(nodes)
    kind = draw.choice(("replaced", "replaced", "replaced", "removed", "renamed"))
    if kind == "replaced" or isinstance(holder, list):
        holder[key] = draw.choice(_STRANGE)
    else:
        value = holder.pop(key)
        if kind == "renamed":
            holder[f"{key}2"] = value
    if isinstance(record, dict) and CHECKSUM in record:
        return checksummed_json(record), f"JSON: a value {kind}"
    return json.dumps(record).encode("utf-8", "surrogatepass"), f"JSON: a value {kind}"


def _nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a value: what holds it, and its key or index."""
    for key in value if isinstance(value, dict) else range(len(value)):
        if key != CHECKSUM:
            yield value, key
            if isinstance(value[key], dict | list) and value[key]:
                yield from _nodes(value[key])


_TOKEN = re.compile(rb"[^\s,;:\[\]{}]+")
_STRANGE_WORDS = (
    *(
        b"",
        b"nan",
        b"-1",
        b"1e999",
        b"9" * 5000,
        b"\0",
        b'"',
        b"'",
        b"\xff\xfe",
        b"&a",
        b"*a",
        b"!!python/name:os",
        b"|",
    ),
    *(
        b"a" * 200_000,
        b"{" * 5000,
        b"[" * 5000,
        b"<<: *a",
        b"\r",
        b"=1+1",
        b"../../x",
        b"\xf0\x9f\x98\x80",
        b"%",
        b"1,5",
    ),
    b"&a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\n",
)


def change_words(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    """A text with one of its words replaced."""
    word = draw.choice(list(_TOKEN.finditer(data)))
    return data[: word.start()] + draw.choice(_STRANGE_WORDS) + data[word.end() :], "text: a word replaced"


_STRANGE_NUMBERS = (0, 1, -1, 3, 1 << 20, 1 << 31, -(1 << 31), 1 << 40, (1 << 63) - 1)
_OPERATORS = ("Loop", "Expand", "Tile", "Resize", "Gemm", "ConstantOfShape", "Conv", "Range", "Nonsense")


def change_onnx(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    """An exported student with one thing of its graph or its contract changed, and the right checksum."""
    import onnx

    model = onnx.load_model_from_string(data[:-CHECKSUM_BYTES])
    graph, node = model.graph, draw.choice(model.graph.node)
    attributes = [own for one in graph.node for own in one.attribute if own.ints or own.type == own.INT]
    weights = draw.choice([one for one in graph.initializer if one.dims and one.raw_data])
    kind = draw.choice(("operator", "attribute", "dimension", "weights cut", "input", "node removed", "contract"))
    if kind == "operator":
        node.op_type = draw.choice(_OPERATORS)
    elif kind == "attribute":
        attribute = draw.choice(attributes)
        if attribute.ints:
            attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice(_STRANGE_NUMBERS)
        else:
            attribute.i = draw.choice(_STRANGE_NUMBERS)
    elif kind == "dimension":
        weights.dims[draw.randrange(len(weights.dims))] = draw.choice(_STRANGE_NUMBERS)
    elif kind == "weights cut":
        weights.raw_data = weights.raw_data[: draw.randrange(len(weights.raw_data))]
    elif kind == "input" and node.input:
        node.input[draw.randrange(len(node.input))] = draw.choice(draw.choice(graph.node).output)
    elif kind == "node removed":
        graph.node.remove(node)
    else:
        entry = next(one for one in model.metadata_props if one.key == CONTRACT_KEY)
        entry.value = change_json(entry.value.encode(), draw)[0].decode("utf-8", "replace")
    return with_checksum(model.SerializeToString()), f"ONNX: {kind} changed"


# -- checksums ---------------------------------------------------------------------------------------------------------


def mend_png(data: bytes) -> bytes:
    """A PNG whose chunks, as far as they can be followed, have the right CRC."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, at)
        if at + 12 + length > len(out):
            break
        struct.pack_into(">I", out, at + 8 + length, zlib.crc32(out[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(out)


def mend_onnx(data: bytes) -> bytes:
    """A model file with the right checksum at its end."""
    return with_checksum(data[:-CHECKSUM_BYTES])


_MENDS = {"PNG": mend_png, "ONNX student": mend_onnx}


# -- originals ---------------------------------------------------------------------------------------------------------


def _image_files() -> Iterator[tuple[str, str, bytes]]:
    """Format, name and bytes of good image files, all of which are small."""
    rgb, wide = picture(1, 96, 80), picture(2, 160, 120)
    frames = [Image.fromarray(picture(seed, 96, 80)) for seed in (3, 4, 5)]
    profile = matrix_profile(DISPLAY_P3, parametric_curve(*SRGB_CURVE))
    shade = np.broadcast_to(np.arange(96, dtype=np.uint8), (80, 96))
    yield "JPEG baseline", "a.jpg", encode(rgb, "JPEG", quality=90, exif=exif_turn(6))
    yield "JPEG baseline", "p3.jpg", encode(rgb, "JPEG", icc_profile=profile)
    yield "JPEG baseline", "cmyk.jpg", save(Image.fromarray(rgb).convert("CMYK"), "JPEG")
    yield "JPEG baseline", "restart.jpg", encode(wide, "JPEG", restart_marker_blocks=4)
    yield "JPEG progressive", "b.jpg", encode(wide, "JPEG", progressive=True, subsampling=0)
    yield "JPEG progressive", "c.jpg", encode(rgb, "JPEG", progressive=True, quality=30)
    yield "PNG", "a.png", encode(rgb, "PNG")
    yield "PNG", "deep.png", png(rgb.astype(np.uint16) * 257)
    yield "PNG", "palette.png", save(Image.fromarray(rgb).quantize(16), "PNG", transparency=bytes(range(16)))
    yield "PNG", "p3.png", encode(rgb, "PNG", icc_profile=profile)
    yield "PNG", "frames.png", save(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield "WebP", "a.webp", encode(rgb, "WEBP")
    yield "WebP", "alpha.webp", encode(np.dstack([rgb, shade]), "WEBP", lossless=True)
    yield "WebP", "frames.webp", save(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    for compression in ("raw", "tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits"):
        yield "TIFF", f"{compression}.tif", encode(rgb, "TIFF", compression=compression)
    yield "TIFF", "gray16.tif", tiff_gray(96, 80, 16, (rgb[..., 0].astype("<u2") * 257).tobytes())
    yield "TIFF", "pages.tif", save(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    yield "BMP", "a.bmp", encode(rgb, "BMP")
    yield "BMP", "palette.bmp", save(Image.fromarray(rgb).quantize(16), "BMP")
    yield "GIF", "a.gif", encode(rgb, "GIF")
    yield "GIF", "frames.gif", save(frames[0], "GIF", save_all=True, append_images=frames[1:])
    yield "JPEG 2000", "a.jp2", encode(rgb, "JPEG2000")
    yield "JPEG 2000", "stream.j2k", encode(rgb, "JPEG2000", no_jp2=True, num_resolutions=3)
    yield "AVIF", "a.avif", encode(rgb, "AVIF")
    yield "AVIF", "frames.avif", save(frames[0], "AVIF", save_all=True, append_images=frames[1:])
    yield "PNM", "a.ppm", encode(rgb, "PPM")
    yield "PNM", "gray16.pgm", save(Image.fromarray(rgb[..., 0].astype(np.uint16) * 257), "PPM")
    yield "PNM", "plain.ppm", b"P3 64 64 255\n" + b" ".join(b"%d" % value for value in rgb[:64, :64].ravel())
    yield "PNM", "one-bit.pbm", save(Image.fromarray(rgb).convert("1"), "PPM")
    try:
        import pillow_heif
    except ModuleNotFoundError:
        return
    sink = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(rgb)).save(sink)
    yield "HEIC", "a.heic", sink.getvalue()


_RATED = "image;mos;split;group\n" + "".join(
    f"a{row}.png;0,{row}5;{('train', 'test')[row % 2]};g{row}\n" for row in range(9)
)


def build_originals(folder: Path, formats: tuple[str, ...] = ()) -> list[Original]:
    """Write the originals below ``folder``, each into a folder of its own.

    Args:
        folder: empty.
        formats: only these; all if empty.
    """
    makers: dict[str, Callable[[Path], Iterator[Original]]] = {
        "tar": _tars,
        "Parquet": _parquets,
        "saved dataset": _saved,
        "rating table": _tables,
        "Excel sheet": _sheets,
        "MATLAB file": _matlab,
        "ONNX student": _students,
        "student folder": _student_folders,
        "pool": _pools,
        "label store": _stores,
        "fusion report": _fusions,
        "recipe": _recipes,
        "record of score": _records,
        "record of meaning": _meanings,
    }
    originals = []
    for name, maker in {**dict.fromkeys(IMAGE_FORMATS, None), **makers}.items():
        if formats and name not in formats:
            continue
        if maker is not None:
            originals += maker(folder / name.replace(" ", "-"))
    for number, (name, file, data) in enumerate(_image_files()):
        if not formats or name in formats:
            own = folder / f"{name.replace(' ', '-')}-{number}"
            own.mkdir(parents=True)
            (own / file).write_bytes(data)
            originals.append(Original(name, "image", file, (file,), own))
    return originals


def open_originals(folder: Path, formats: tuple[str, ...] = ()) -> list[Original]:
    """The originals below ``folder``, which are made if they are not there; arguments as ``build_originals``."""
    index = folder / "index.json"
    if not index.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        made = [{**asdict(one), "folder": str(one.folder)} for one in build_originals(folder, formats)]
        index.write_text(json.dumps(made))
    records = json.loads(index.read_text())
    return [Original(**{**one, "folder": Path(one["folder"]), "mutable": tuple(one["mutable"])}) for one in records]


IMAGE_FORMATS = (
    *("JPEG baseline", "JPEG progressive", "PNG", "WebP", "TIFF", "BMP", "GIF", "JPEG 2000", "AVIF", "PNM", "HEIC"),
)


def _images() -> list[bytes]:
    return [encode(picture(seed, 64, 64), "PNG") for seed in range(5)]


def _tars(folder: Path) -> Iterator[Original]:
    from tests.helpers.containers import write_tar

    folder.mkdir()
    write_tar(folder / "a.tar", [(f"{number}.png", data) for number, data in enumerate(_images())])
    yield Original("tar", "pool of", "a.tar", ("a.tar",), folder)


def _parquets(folder: Path) -> Iterator[Original]:
    import pyarrow as pa

    from tests.helpers.containers import write_parquet

    folder.mkdir()
    structs = pa.array([{"bytes": data, "path": "a.png"} for data in _images()])
    write_parquet(folder / "a.parquet", structs)
    yield Original("Parquet", "pool of", "a.parquet", ("a.parquet",), folder)


def _saved(folder: Path) -> Iterator[Original]:
    from tests.helpers.containers import dataset

    dataset(_images()).save_to_disk(folder / "saved")
    names = tuple(f"saved/{path.name}" for path in sorted((folder / "saved").iterdir()))
    yield Original("saved dataset", "pool of", "saved", names, folder)


def _tables(folder: Path) -> Iterator[Original]:
    texts = {
        "semicolons.csv": _RATED.encode(),
        "commas.csv": _RATED.replace(",", ".").replace(";", ",").encode(),
        "utf16.csv": _RATED.replace(",", ".").replace(";", "\t").encode("utf-16"),
    }
    for number, (name, data) in enumerate(texts.items()):
        own = folder / str(number)
        own.mkdir(parents=True)
        (own / name).write_bytes(data)
        yield Original("rating table", "rating table", name, (name,), own)


def _sheets(folder: Path) -> Iterator[Original]:
    import openpyxl

    folder.mkdir()
    book = openpyxl.Workbook()
    for line in _RATED.splitlines():
        book.active.append(line.split(";"))  # type: ignore[union-attr]
    book.save(folder / "a.xlsx")
    yield Original("Excel sheet", "sheet", "a.xlsx", ("a.xlsx",), folder)


def _matlab(folder: Path) -> Iterator[Original]:
    from scipy.io import savemat

    folder.mkdir()
    names = np.array([[f"{number}.bmp"] for number in range(9)], dtype=object)
    savemat(folder / "a.mat", {"AllMOS_release": np.arange(9.0), "AllImages_release": names}, do_compression=True)
    yield Original("MATLAB file", "MATLAB file", "a.mat", ("a.mat",), folder)


def _students(folder: Path) -> Iterator[Original]:
    from tests.helpers.tiny_students import export_tiny

    folder.mkdir()
    export_tiny(folder / "a.onnx")
    yield Original("ONNX student", "student", "a.onnx", ("a.onnx",), folder)


def _student_folders(folder: Path) -> Iterator[Original]:
    from students.storage import save_student
    from tests.helpers.tiny_students import tiny_student

    folder.mkdir()
    save_student(tiny_student(), folder / "student", about={"name": "tiny"})
    names = tuple(f"student/{path.name}" for path in sorted((folder / "student").iterdir()))
    yield Original("student folder", "student folder", "student", names, folder)


def _pools(folder: Path) -> Iterator[Original]:
    from tests.helpers.fusing import invented_pool

    folder.mkdir()
    invented_pool(folder / "pool", rows=24, scenes=6)
    yield Original("pool", "pool", "pool", ("pool/manifest.json", "pool/pool.parquet"), folder)


def _stores(folder: Path) -> Iterator[Original]:
    from tests.helpers.fusing import invented_pool, seen, teacher_store

    folder.mkdir()
    pool = invented_pool(folder / "pool", rows=24, scenes=6)
    features = {"map": np.random.default_rng(0).normal(size=(24, 4))}
    store = teacher_store(folder / "labels", pool, seen(0.1, 1, 24), name="a", shards=2, features=features)
    names = tuple(str(path.relative_to(folder)) for path in sorted(store.folder.rglob("*")) if path.is_file())
    yield Original("label store", "label store", "labels", names, folder)


def _fusions(folder: Path) -> Iterator[Original]:
    from pseudo_labels.fusion.fuse import fuse
    from tests.helpers.fusing import invented_pool, ratings_of, seen, teacher_store

    folder.mkdir()
    pool = invented_pool(folder / "pool")
    stores = [teacher_store(folder / name, pool, seen(0.1, seed), name=name) for seed, name in enumerate("ab")]
    fuse([store.folder for store in stores], folder / "fused", ratings=ratings_of(pool))
    yield Original("fusion report", "fusion report", "fused", ("fused/fusion.json",), folder)


def _recipes(folder: Path) -> Iterator[Original]:
    folder.mkdir()
    shutil.copy2(Path(__file__).parents[2] / "configs" / "tiny.yaml", folder / "a.yaml")
    yield Original("recipe", "recipe", "a.yaml", ("a.yaml",), folder)


def _records(folder: Path) -> Iterator[Original]:
    from tests.campaign.reading import open_record

    folder.mkdir()
    record = open_record(folder)
    record.start()
    record.written("0" * 64)
    record.close(keep=True)
    yield Original("record of score", "record of score", "", (record.path.name,), folder)


def _meanings(folder: Path) -> Iterator[Original]:
    from students.contract import Calibration
    from students.meaning.intervals import Intervals, Spread
    from students.meaning.model_record import ModelName
    from students.meaning.own_scale import OwnScale
    from students.shipped import population_paths

    folder.mkdir()
    model, measured = ModelName("tiny", "a" * 64), ({"part": "all", "coverage": [0.9, None, None]},)
    shutil.copy2(population_paths()[0], folder / "population.json")
    scale = OwnScale(model, Calibration(((0.0, 0.1), (0.5, 0.4), (1.0, 0.9))), 1.0, 5.0, measured={"n": 20})
    (folder / "calibration.json").write_bytes(scale.to_bytes())
    spread = Spread((0.2, 0.8), (0.2, 0.1))
    intervals = Intervals(model, "of trees", 90, 80, spread, {80: 1.2, 95: 2.0}, measured=measured)
    (folder / "intervals.json").write_bytes(intervals.to_bytes())
    for name in ("population.json", "calibration.json", "intervals.json"):
        yield Original("record of meaning", "record of meaning", name, (name,), folder)


# -- mutants -----------------------------------------------------------------------------------------------------------

_TEXTS = {"rating table", "recipe"}


def mutants(originals: list[Original], count: int, seed: int) -> Iterator[Mutant]:
    """``count`` mutants, evenly over the formats and in turn over their originals.

    Each is a function of the seed, its number and the originals.

    Raises:
        PocketiqaError: there are no originals.
    """
    by_format: dict[str, list[Original]] = {}
    for original in originals:
        by_format.setdefault(original.format, []).append(original)
    if not by_format:
        raise PocketiqaError("no originals: name formats that exist")
    formats = list(by_format)
    for number in range(count):
        draw = random.Random(f"{seed}/{number}")
        group = by_format[formats[number % len(formats)]]
        original = group[number // len(formats) % len(group)]
        other = draw.choice(originals)
        yield _mutant(original, draw, _bytes_of(other, draw.choice(other.mutable)))


def _bytes_of(original: Original, name: str) -> bytes:
    return (original.folder / name).read_bytes()


def _mutant(original: Original, draw: random.Random, other: bytes) -> Mutant:
    name = draw.choice(original.mutable)
    data, kinds = _bytes_of(original, name), []
    ways: list[Callable[[bytes], tuple[bytes, str]]] = [partial(change, draw=draw, other=other or b"\0")]
    if name.endswith(".json"):
        ways.append(partial(change_json, draw=draw))
    if original.format == "ONNX student":
        ways += [partial(change_onnx, draw=draw)] * 2
    if original.format in _TEXTS:
        ways.append(partial(change_words, draw=draw))
    way = draw.choice(ways)
    for _ in range(draw.choice((1, 1, 1, 2)) if way is ways[0] else 1):
        data, kind = way(data or b"\0")
        kinds.append(kind)
    if way is ways[0] and original.format in _MENDS and draw.random() < 0.5:
        data = _MENDS[original.format](data)
        kinds.append("checksum mended")
    return Mutant(original, name, tuple(kinds), data)
