"""Pictures of the report: thumbnails, quality maps over photographs, all as data inside the page."""

import base64
import io

import numpy as np
from PIL import Image

from distill.html.markup import Html, tag

# Pictures are there to be recognised, not measured, and a page may hold dozens of them.
_QUALITY = 82

# Viridis (van der Walt and Smith, 2015) at nine even steps: dark is bad, bright is good, also without colour vision.
_VIRIDIS = np.array(
    [
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ],
    np.float64,
)


def thumbnail(rgb: np.ndarray, *, alt: str, width: int = 240, height: int = 180) -> Html:
    """An image that fits into ``width`` x ``height`` CSS pixels, stored at twice that.

    Args:
        rgb: uint8 HxWx3.
        alt: description of what it shows, in words.
        width: most CSS pixels across.
        height: most CSS pixels down.
    """
    image = Image.fromarray(np.ascontiguousarray(rgb))
    # Twice the size, for screens with two pixels for each CSS pixel.
    image.thumbnail((2 * width, 2 * height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=_QUALITY, optimize=True)
    size = max(1, round(image.width / 2)), max(1, round(image.height / 2))
    return tag("img", src=_data_address(stored.getvalue()), width=size[0], height=size[1], alt=alt, loading="lazy")


def _data_address(jpeg: bytes) -> str:
    # The page promises not to hold the letters that start an outside address, and base64 may spell them by chance.
    body = base64.b64encode(jpeg).decode().replace("http", "%68ttp")
    return f"data:image/jpeg;base64,{body}"


def colours(values: np.ndarray) -> np.ndarray:
    """Viridis colours of values in [0, 1]: uint8 [..., 3]."""
    position = np.clip(values, 0, 1) * (len(_VIRIDIS) - 1)
    channels = [np.interp(position, np.arange(len(_VIRIDIS)), _VIRIDIS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def overlay(rgb: np.ndarray, quality_map: np.ndarray, *, opacity: float = 0.6) -> np.ndarray:
    """The photograph in gray under its quality map in colours, which spread over the map's own range.

    Args:
        rgb: uint8 HxWx3.
        quality_map: [h, w].
        opacity: opacity of the colours, 0 to 1.
    """
    low, high = float(quality_map.min()), float(quality_map.max())
    # Over the map's own range: most maps span little of 0 to 1, and would look flat. A map of one value has none.
    spread = (quality_map - low) / (high - low) if high > low else np.full_like(quality_map, 0.5)
    size = rgb.shape[1], rgb.shape[0]
    # float32 is what Pillow resizes without rounding to 256 levels. Bicubic may leave [0, 1]; ``colours`` clips.
    smooth = Image.fromarray(spread.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    gray = np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).convert("L"), np.float64)[..., None]
    return (opacity * colours(np.asarray(smooth)) + (1 - opacity) * gray).round().astype(np.uint8)
