"""Bounds of work and memory: what they refuse, and that what they change changes no pixel."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from pseudo_labels import images, limits
from pseudo_labels.errors import WorkExceededError
from pseudo_labels.images import DecodeLimits, ImageError, decode, load
from pseudo_labels.limits import FileSlices, Header, Plan, PnmImageFile, make_plan, metered, patch
from pseudo_labels.records import Status
from pseudo_labels.structure import Structure
from students.look import Head, SecondLook
from students.preprocess import Preprocess
from tests.helpers import campaign, profiles
from tests.helpers.encoders import encode, exif_turn, picture, png, png_chunk, save, tiff_file, tiff_tags
from tests.helpers.shared import shared_data

RGB = picture(1, 960, 640)
LARGE = (12_000, 8_300)
P3 = profiles.matrix_profile(profiles.DISPLAY_P3, profiles.parametric_curve(*profiles.SRGB_CURVE))
LONG = pytest.mark.skipif(not campaign.WHOLE, reason="part of `make campaign`")
TO_288 = Preprocess(max_side=288)


# --- pieces


def test_a_stream_ends_after_so_many_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcdef")
    monkeypatch.setattr(limits._Metered, "reads_left", 3)
    for stream in (metered(b"abcdef"), metered(io.FileIO(tmp_path / "file"))):
        assert [stream.read(1) for _ in range(3)] == [b"a", b"b", b"c"]
        with pytest.raises(WorkExceededError, match="more than 2000000 tiny pieces"):
            stream.read(1)


def test_a_stream_gives_other_bytes_at_some_offsets(tmp_path: Path) -> None:
    content = bytes(range(256)) * 40
    expected = bytearray(content)
    patches = {3: b"abcd", 5000: b"xyz", len(content) - 2: b"--"}
    for offset, new in patches.items():
        expected[offset : offset + len(new)] = new
    (tmp_path / "file").write_bytes(content)
    for stream in (metered(content), metered(io.FileIO(tmp_path / "file"))):
        patch(stream, patches)
        for size in (1, 2, 7, 4999, 20_000):
            stream.seek(0)
            assert b"".join(iter(lambda: stream.read(size), b"")) == expected  # noqa: B023 - used at once
        assert stream.seek(5001) == 5001
        assert stream.read(3) == b"yz" + content[5003:5004]


def test_slices_of_a_file_are_those_of_its_content(tmp_path: Path) -> None:
    content = bytes(range(200))
    (tmp_path / "file").write_bytes(content)
    with io.FileIO(tmp_path / "file") as file:
        file.seek(50)
        slices = FileSlices(file)
        assert len(slices) == 200
        for part in (slice(4), slice(10, 20), slice(190, 900), slice(300, 400), slice(20, 10), slice(-5, None)):
            assert slices[part] == content[part]
        assert file.tell() == 50


# --- plain PNM, against Pillow


def words(samples: np.ndarray, *, between: bytes = b" ") -> bytes:
    return between.join(b"%d" % value for value in samples.ravel().tolist())


SMALL = picture(2)
DEEP = SMALL.astype(np.int64) * 251
BITS = SMALL[..., 0] > 127


@pytest.mark.parametrize(
    "data",
    [
        b"P3 96 80 255\n" + words(SMALL),
        b"P3 # a\n96 80\n#b\r200\n" + words(np.minimum(SMALL, 200), between=b"\n#c d # e\n\t"),
        b"P3 96 80 65535\n" + words(DEEP),
        b"P2 96 80 255\n" + words(SMALL[..., 0]),
        b"P2 96 80 1000\n" + words(DEEP[..., 0] % 1001) + b" 5 6 7",
        b"P1 96 80\n" + words(BITS.astype(int), between=b""),
        b"P1 96 80\n" + words(BITS.astype(int), between=b"\n"),
        b"P6 96 80 100\n" + (SMALL % 101).tobytes(),
        b"P6 96 80 65535\n" + DEEP.astype(">u2").tobytes(),
        b"P5 96 80 300\n" + (DEEP[..., 0] % 301).astype(">u2").tobytes(),
        b"P5 96 80 7\n" + SMALL[..., 0].tobytes(),
    ],
    ids=lambda value: value[:11].decode() if isinstance(value, bytes) else str(value),
)
@pytest.mark.parametrize("piece", [1 << 22, 1 << 10])
def test_pnm_has_the_pixels_of_pillow(data: bytes, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_PIECE", piece)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image)
    ours = PnmImageFile(io.BytesIO(data))
    ours.load()
    assert ours.mode == image.mode
    np.testing.assert_array_equal(np.asarray(ours), expected)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"P2 96 80 255\n" + b"7 " * 500, "500 samples are there, 7680 are needed"),
        (b"P2 96 80 200\n" + b"201 " * 7680, "a sample of 201 is above the maximum of 200"),
        (b"P2 96 80 200\n" + b"9" * 40 + b" 7" * 7680, "more than 10 digits"),
        (b"P2 96 80 200\n" + b"-7 " * 7680, "is no sample of a plain PNM"),
        (b"P1 96 80\n" + b"2" * 7680, "is no sample of a plain PBM"),
        (b"P6 96 80 100\n" + bytes(99), "99 samples are there"),
    ],
)
def test_corrupt_pnm_is_named(body: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode(body)
    assert caught.value.status == Status.CORRUPT


# --- reduction


@pytest.mark.parametrize("turn", [1, 3, 6])
@pytest.mark.parametrize(("kind", "worst"), [("PNG", 2), ("TIFF", 2), ("JPEG", 4), ("JPEG2000", 4)])
def test_a_reduced_picture_is_what_the_resize_makes(
    kind: str, worst: int, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resizer = Preprocess(max_side=96)
    rgb = picture(3, 967, 641)  # no multiple of anything
    data = encode(rgb, kind, **({} if kind == "JPEG2000" else {"exif": exif_turn(turn)}))
    expected = resizer.resize(decode(data))
    np.testing.assert_array_equal(resizer.resize(decode(data, resizer=resizer)), expected)
    monkeypatch.setattr(limits, "REDUCE_ABOVE", 1)
    reduced = decode(data, resizer=resizer)
    assert reduced.shape == expected.shape
    # Turned, the averaged pixels begin at the other edge.
    exact = turn == 1 and kind in ("PNG", "TIFF")
    assert np.abs(reduced.astype(int) - expected).max() <= (0 if exact else worst)
    assert resizer.resize(reduced) is reduced


def test_scores_of_real_photographs_move_by_less_than_two_thousandths(monkeypatch: pytest.MonkeyPatch) -> None:
    from students.runtime import Scorer

    scorer = Scorer()
    off = []
    for path in sorted(shared_data("kodak").glob("*.png"))[:2]:
        with Image.open(path) as image:
            data = encode(np.asarray(image.resize((4 * image.width, 4 * image.height))), "JPEG", quality=92)
        whole = scorer.score(data).score
        monkeypatch.setattr(limits, "REDUCE_ABOVE", 1)
        off.append(abs(scorer.score(data).score - whole))
        monkeypatch.undo()
    assert np.mean(off) <= 0.002


# --- the plan


def plan_of(name: str = "JPEG", mode: str = "RGB", structure: Structure | None = None, **given: object) -> Plan:
    header = Header(name, mode, LARGE, int(given.get("in_memory", 0)), int(given.get("encoded", 0)))  # type: ignore[call-overload]
    return make_plan(header, structure or Structure(), 100_000_000, given.get("resizer"))  # type: ignore[arg-type]


def test_pictures_of_ordinary_size_are_decoded_whole() -> None:
    header = Header("JPEG", "RGB", (9000, 7000), 0, 0)
    assert make_plan(header, Structure(), 100_000_000, TO_288) == Plan()
    assert plan_of() == Plan()


def test_the_decoder_takes_the_part_of_the_reduction_that_comes_close() -> None:
    # 12000 / 288 / 2 is 20: a multiple of 4, not of 8.
    assert plan_of(resizer=TO_288) == Plan(4, 5, 5)
    assert plan_of("PNG", resizer=TO_288) == Plan(1, 20, 20)
    assert plan_of("JPEG 2000", structure=Structure(halvings=1), resizer=TO_288) == Plan(2, 10, 10)


def test_an_eager_resizer_has_jpegs_reduced_by_their_decoder_to_no_less_than_it_needs() -> None:
    look = SecondLook(Head())
    halves = {(3264, 2448): 2, (4000, 3000): 2, (6000, 4000): 2, (3000, 2000): 1, (8000, 6000): 4}
    for size, scale in halves.items():
        assert make_plan(Header("JPEG", "RGB", size, 0, 0), Structure(), 100_000_000, look) == Plan(scale)
        assert make_plan(Header("PNG", "RGB", size, 0, 0), Structure(), 100_000_000, look) == Plan()


def test_memory_and_time_are_bounded_from_the_header() -> None:
    with pytest.raises(WorkExceededError, match=r"would take \d+ MB of memory, above the bound of 1049 MB"):
        plan_of("WebP", structure=Structure(buffers=12 * 12_000 * 8_300))
    with pytest.raises(WorkExceededError, match=r"would take about 35 s, above the bound of 10 s"):
        plan_of("JPEG 2000", encoded=200_000_000)
    assert plan_of("JPEG 2000", structure=Structure(halvings=5), encoded=200_000_000, resizer=TO_288).scale == 4
    header = Header("WebP", "RGB", (3000, 2000), 0, 0)
    assert make_plan(header, Structure(buffers=12 * 6_000_000), 1_000_000, None) == Plan()


# --- memory, measured

MEASURE = """
import sys
from pseudo_labels.images import load
from students.look import Head, SecondLook
from students.preprocess import Preprocess
def peak():
    return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')) >> 10
before = peak()
rgb = load(sys.argv[1], resizer=Preprocess(max_side=288) if sys.argv[2] == 'score' else None)
print(peak() - before, *rgb.shape)
"""


def peak_of(path: Path, way: str) -> tuple[int, list[str]]:
    """MB that loading takes, and the shape."""
    done = subprocess.run([sys.executable, "-c", MEASURE, path, way], check=True, capture_output=True, text=True)
    megabytes, *shape = done.stdout.split()
    return int(megabytes), shape


def sparse(path: Path, head: bytes, size: int) -> Path:
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(size)
    return path


def tiff_rgb(bits: int) -> bytes:
    tags = [
        (256, 12_000),
        (257, 8_300),
        (258, bits << 16 | bits),
        (259, 1),
        (262, 2),
        (273, 4096),
        (277, 3),
        (278, 8_300),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags if tag != 258)
    depth = struct.pack("<HHII", 258, 3, 3, 2048)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries[:24] + depth + entries[24:] + bytes(4)
    return head.ljust(2048, b"\0") + struct.pack("<3H", bits, bits, bits)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("form", "way", "most"),
    [
        ("jpeg", "score", 200),
        ("ppm", "score", 560),
        # The other ways to the same bounds take three times as long.
        pytest.param("jpeg", "whole", 860, marks=LONG),
        pytest.param("no end", "score", 200, marks=LONG),
        pytest.param("no end", "whole", 860, marks=LONG),
        pytest.param("tiff16", "score", 560, marks=LONG),
        pytest.param("ppm", "whole", 860, marks=LONG),
    ],
)
def test_100_megapixels_take_bounded_memory(tmp_path: Path, form: str, way: str, most: int) -> None:
    pixels = 12_000 * 8_300
    path = tmp_path / form
    if form in ("jpeg", "no end"):
        # With a profile that is applied: colour is converted strip by strip.
        data = save(Image.new("RGB", LARGE, (90, 120, 60)), "JPEG", icc_profile=P3)
        path.write_bytes(data if form == "jpeg" else data[:-2])
    elif form == "ppm":
        sparse(path, b"P6 12000 8300 255\n", 3 * pixels + 18)
    else:
        bits = int(form.removeprefix("tiff"))
        sparse(path, tiff_rgb(bits), 4096 + 3 * pixels * bits // 8)
    megabytes, shape = peak_of(path, way)
    assert shape == (["199", "288", "3"] if way == "score" else ["8300", "12000", "3"])
    assert megabytes < most


def test_large_sparse_files_are_refused_unread(tmp_path: Path) -> None:
    for name, head in (("a.jpg", encode(RGB, "JPEG")), ("b", b""), ("c.gif", b"GIF89a" + bytes(700))):
        path = sparse(tmp_path / name, head, 900_000_000)
        with pytest.raises(ImageError):
            load(path)
        with pytest.raises(ImageError, match="900000000 bytes, above the limit of 400000000"):
            images.read_bytes(path)


def test_large_files_are_decoded_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_STREAMED_FROM", 10)
    deep = png(DEEP.astype(np.uint16))
    for kind, options in (("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {}), ("PPM", {})):
        path = tmp_path / "file"
        path.write_bytes(encode(SMALL, kind, **options))
        np.testing.assert_array_equal(load(path), SMALL)
        path.write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(ImageError) as caught:
            load(path)
        assert caught.value.status == Status.CORRUPT
    path.write_bytes(deep)
    np.testing.assert_array_equal(load(path), decode(deep))


def test_colour_and_the_first_picture_are_read_from_the_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(P3))[:-4] + b"\0\0\0\0"
    thumbnail = tiff_tags(80, 64, 8, 2, 3) | {254: (4, [1])}
    with_thumbnail = [(thumbnail, [bytes(80 * 64 * 3)]), (tiff_tags(96, 80, 8, 2, 3), [SMALL.tobytes()])]
    files = {
        "PNG with a profile": encode(SMALL, "PNG", icc_profile=P3),
        "PNG with a broken profile": png(SMALL, bits=8, extra=broken),
        "TIFF with a profile": encode(SMALL, "TIFF", icc_profile=P3),
        "TIFF with a thumbnail": tiff_file(with_thumbnail),
        "JPEG in TIFF": encode(SMALL, "TIFF", compression="jpeg"),
    }
    path, data = tmp_path, b""
    for name, data in files.items():
        monkeypatch.setattr(images, "_STREAMED_FROM", 1 << 30)
        notes: list[list[str]] = [[], []]
        path = tmp_path / name
        path.write_bytes(data)
        expected = load(path, notes=notes[0])
        monkeypatch.setattr(images, "_STREAMED_FROM", 10)
        np.testing.assert_array_equal(load(path, notes=notes[1]), expected)
        assert notes[0] == notes[1]
        assert len(notes[0]) == ("broken" in name)
    with Image.open(path) as image:
        assert isinstance(image, TiffImagePlugin.TiffImageFile)
        (offset,), (size,) = image.tag_v2[273], image.tag_v2[279]
    half = offset + size // 2
    path.write_bytes(data[:half] + b"\xff\xd9" + bytes(offset + size - half - 2) + data[offset + size :])
    with pytest.raises(ImageError, match="the image data end early"):
        load(path)


def test_webp_of_ordinary_size_is_read_whatever_the_limit() -> None:
    assert decode(encode(RGB, "WEBP"), DecodeLimits(max_pixels=960 * 640)).shape == RGB.shape
