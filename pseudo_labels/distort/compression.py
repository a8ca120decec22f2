"""JPEG and JPEG 2000 of KADID-10k (Lin, Hosu, Saupe 2019), with its level tables."""

import io

import numpy as np
from PIL import Image

from pseudo_labels.distort.scale import at

# Level 0, then the levels 1 to 5.
JPEG_QUALITY = (100.0, 43.0, 36.0, 24.0, 7.0, 4.0)
JPEG2000_RATIO = (2.0, 16.0, 32.0, 45.0, 120.0, 400.0)

# Headers of a JPEG 2000 file take this much; a target below it leaves nothing of a small image.
_JPEG2000_LEAST_BYTES = 400


def encode_jpeg(rgb: np.ndarray, quality: int) -> bytes:
    """A JPEG file with 4:2:0 chroma, as cameras and sharing services write it."""
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "JPEG", quality=quality, subsampling="4:2:0")
    return data.getvalue()


def recode_jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    """Pixels after one pass of ``encode_jpeg``."""
    return np.array(Image.open(io.BytesIO(encode_jpeg(rgb, quality))))


def jpeg(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """JPEG; the quality is rounded to a whole number."""
    return recode_jpeg(rgb, round(at(JPEG_QUALITY, severity)))


def jpeg2000(rgb: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Irreversible JPEG 2000 with one layer at a compression ratio against 24 bits a pixel."""
    return recode_jpeg2000(rgb, at(JPEG2000_RATIO, severity))


def recode_jpeg2000(rgb: np.ndarray, ratio: float) -> np.ndarray:
    """Pixels after irreversible JPEG 2000 with one layer, at a compression ratio against 24 bits a pixel."""
    ratio = min(ratio, rgb.size / _JPEG2000_LEAST_BYTES)
    data = io.BytesIO()
    image = Image.fromarray(rgb)
    image.save(data, "JPEG2000", quality_mode="rates", quality_layers=[ratio], irreversible=True, no_jp2=True)
    return np.array(Image.open(data))
