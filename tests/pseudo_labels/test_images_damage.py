"""Files that were cut or hit by noise: a reason or an image, never anything else."""

import subprocess
import sys
from collections import Counter
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from pseudo_labels.images import ImageError, decode
from pseudo_labels.records import Status
from tests.helpers.encoders import encode, exif_turn, picture, save, tiff_gray
from tests.helpers.imports import ROOT

RGB = picture(1)
RAMP = np.linspace(0, 65535, 96 * 80).astype(np.uint16).reshape(80, 96)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "AVIF", "PPM"])
def test_cut_files_never_pass_for_whole_ones(kind: str) -> None:
    whole = encode(RGB, kind)
    full = decode(whole)
    seen = Counter[Status]()
    for length in sorted({*range(0, 64, 3), *range(64, len(whole), max(1, len(whole) // 60)), len(whole) - 1}):
        try:
            # Only a file that lost nothing but its end mark may pass.
            np.testing.assert_array_equal(decode(whole[:length]), full)
        except ImageError as error:
            seen[error.status] += 1
    assert set(seen) <= {Status.EMPTY, Status.NOT_AN_IMAGE, Status.CORRUPT}
    assert seen[Status.CORRUPT] > 40


FUZZED = {
    "jpeg": encode(RGB, "JPEG", exif=exif_turn(6)),
    "progressive": encode(RGB, "JPEG", progressive=True),
    "png": encode(RGB, "PNG"),
    "palette": save(Image.fromarray(RGB).quantize(16), "PNG", transparency=bytes(range(16))),
    "gif": encode(RGB, "GIF"),
    "webp": encode(RGB, "WEBP"),
    "tiff": encode(RGB, "TIFF", exif=exif_turn(6)),
    "deflate": encode(RGB, "TIFF", compression="tiff_adobe_deflate"),
    "deep": tiff_gray(96, 80, 16, RAMP.astype("<u2").tobytes()),
    "bmp": encode(RGB, "BMP"),
    "jpeg2000": encode(RGB, "JPEG2000"),
    "avif": encode(RGB, "AVIF"),
    "ppm": encode(RGB, "PPM"),
}


@pytest.mark.parametrize("name", FUZZED)
def test_noise_in_files_gives_an_image_or_a_reason(name: str) -> None:
    generator = np.random.default_rng(sorted(FUZZED).index(name))
    outcomes = Counter[str]()
    for _ in range(60):
        data = bytearray(FUZZED[name])
        reach = min(len(data), 300) if generator.random() < 0.6 else len(data)
        for at in generator.integers(0, reach, generator.integers(1, 6)):
            data[at] ^= 1 << int(generator.integers(8))
        try:
            rgb = decode(bytes(data))
            assert rgb.dtype == np.uint8
            assert rgb.ndim == 3
            outcomes["image"] += 1
        except ImageError as error:
            outcomes[error.status if error.reason.isprintable() else "unprintable"] += 1
    assert outcomes.total() == 60
    assert outcomes.keys() & {Status.CORRUPT, Status.NOT_AN_IMAGE}
    assert "unprintable" not in outcomes


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg", "tiff_ccitt"])
def test_libtiff_prints_no_line_of_its_own(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The library writes to the file descriptor, past Python: lines without a file name among the rows."""
    image = Image.fromarray(RGB).convert("1" if compression == "tiff_ccitt" else "RGB")
    data = bytearray(save(image, "TIFF", compression=compression))
    for at in range(8, len(data) // 2, max(1, len(data) // 60)):
        data[at] ^= 0xA5
    with suppress(ImageError):
        decode(bytes(data))
    assert capfd.readouterr().err == ""


def test_pillow_warns_of_no_size_that_the_limits_allow() -> None:
    """In a process of its own: pytest has filters of warnings, and so has whatever decoded before."""
    code = (
        "import io; from PIL import Image; Image.MAX_IMAGE_PIXELS = 96 * 80 - 1\n"
        "from pseudo_labels.images import decode\n"
        "frames, data = [Image.new('P', (96, 80), colour) for colour in (1, 2)], io.BytesIO()\n"
        "frames[0].save(data, 'GIF', save_all=True, append_images=frames[1:], disposal=2)\n"
        "print(decode(data.getvalue()).shape)\n"
        "again = io.BytesIO(); frames[0].save(again, 'PNG'); Image.open(again).crop((0, 0, 96, 80))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("(80, 96, 3)\n", "")
