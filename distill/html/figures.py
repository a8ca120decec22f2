"""Pictures: thumbnails and quality maps inside a page of the report, and PNG files of maps with regions."""

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from distill.html.markup import Html, tag
from pseudo_labels.regions.masks import Box, outline, outline_colours

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


def enlarged(values: np.ndarray, size: tuple[int, int], across: tuple[float, float] | None = None) -> np.ndarray:
    """A map at the size of a picture, smooth, spread over its own range: float32 [height, width], about 0 to 1.

    Args:
        values: [h, w].
        size: width and height of the result.
        across: rows and columns of cells that the picture fills (``students.regions.cells_across``); None is all.
    """
    low, high = float(values.min()), float(values.max())
    # Over the map's own range: most maps span little of 0 to 1, and would look flat. A map of one value has none.
    spread = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    # float32 is what Pillow resizes without rounding to 256 levels. Bicubic may leave [0, 1]; ``colours`` clips.
    image = Image.fromarray(spread.astype(np.float32))
    box = None if across is None else (0.0, 0.0, across[1], across[0])
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box))


def overlay(
    rgb: np.ndarray, quality_map: np.ndarray, *, opacity: float = 0.6, across: tuple[float, float] | None = None
) -> np.ndarray:
    """The photograph in gray under its quality map in colours, which spread over the map's own range.

    Args:
        rgb: uint8 HxWx3.
        quality_map: [h, w].
        opacity: opacity of the colours, 0 to 1.
        across: see ``enlarged``.
    """
    smooth = enlarged(quality_map, (rgb.shape[1], rgb.shape[0]), across)
    gray = np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).convert("L"), np.float64)[..., None]
    return (opacity * colours(smooth) + (1 - opacity) * gray).round().astype(np.uint8)


# Sides of drawings in pixels: large enough for numbers to be read, small enough for a screen.
_LEAST_PX, _MOST_PX, _MOST_MAP_PX = 480, 900, 1600
_MARGIN_PX, _TEXT_PX, _FOOT_PX, _BAR_PX = 10, 14, 34, 160
_PAPER, _INK = (255, 255, 255), (30, 30, 30)
# Of more regions, only numbers that fit into their region are drawn: the others would cover the picture.
_MOST_NUMBERS = 150


@dataclass(frozen=True)
class OutlinedRegion:
    """A region to be drawn.

    Attributes:
        number: as in the table of the regions; None writes none.
        box: left, top, width and height in pixels of the photograph.
        inner: the mask within the box, bool.
        quality: in [0, 1].
    """

    number: int | None
    box: Box
    inner: np.ndarray
    quality: float


def heat_map(quality_map: np.ndarray, size: tuple[int, int], across: tuple[float, float] | None = None) -> bytes:
    """The quality map in colours as a PNG file, at the photograph's size, of at most 1600 pixels on a side.

    Args:
        quality_map: [h, w]; dark is its lowest quality, bright its highest. The file's text "quality" names both.
        size: width and height of the photograph.
        across: see ``enlarged``.
    """
    scale = min(1.0, _MOST_MAP_PX / max(size))
    smooth = enlarged(quality_map, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), across)
    return _png(Image.fromarray(colours(smooth)), quality_map)


def regions_figure(
    rgb: np.ndarray,
    quality_map: np.ndarray,
    regions: Iterable[OutlinedRegion] = (),
    *,
    heading: str,
    across: tuple[float, float] | None = None,
) -> bytes:
    """Two panels as a PNG file: the photograph with outlines and numbers of regions, its quality map with qualities.

    Args:
        rgb: uint8 HxWx3.
        quality_map: [h, w].
        regions: in the order in which they are drawn; taken one by one.
        heading: a line below the panels.
        across: see ``enlarged``.
    """
    panels = region_panels(rgb, quality_map, regions, across=across)
    images, font = [Image.fromarray(panel) for panel in panels], ImageFont.load_default(_TEXT_PX)
    return _png(_sheet(images, quality_map, heading, font), quality_map)


def region_panels(
    rgb: np.ndarray,
    quality_map: np.ndarray,
    regions: Iterable[OutlinedRegion],
    *,
    across: tuple[float, float] | None = None,
    most_px: int = _MOST_PX,
) -> tuple[np.ndarray, np.ndarray]:
    """The photograph with outlines and numbers of regions, and its quality map with outlines and qualities.

    Args:
        rgb: uint8 HxWx3.
        quality_map: [h, w].
        regions: in the order in which they are drawn; taken one by one.
        across: see ``enlarged``.
        most_px: longer side of both; small photographs are enlarged to 480.

    Returns:
        Two pictures of one size, uint8 [height, width, 3].
    """
    longer = max(rgb.shape[:2])
    scale = min(max(longer, _LEAST_PX), most_px) / longer
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    small = np.array(Image.fromarray(np.ascontiguousarray(rgb)).resize(size, Image.Resampling.LANCZOS))
    # Less colour than in thumbnails: what the picture shows must be seen beneath.
    panels = [small, overlay(small, quality_map, opacity=0.55, across=across)]
    labels = list(_draw_outlines(panels, regions, (size[0] / rgb.shape[1], size[1] / rgb.shape[0])))
    numbered = _with_texts(panels[0], [(label, label.number) for label in labels])
    return numbered, _with_texts(panels[1], [(label, label.quality) for label in labels])


@dataclass(frozen=True)
class _Label:
    number: str
    quality: str
    x: float
    y: float
    width: int
    height: int


def _with_texts(panel: np.ndarray, texts: Sequence[tuple[_Label, str]]) -> np.ndarray:
    """The panel with the text of each region at its middle."""
    image, font = Image.fromarray(panel), ImageFont.load_default(_TEXT_PX)
    draw = ImageDraw.Draw(image)
    for label, text in texts:
        left, top, right, bottom = draw.textbbox((0, 0), text, font)
        if len(texts) > _MOST_NUMBERS and (right - left > label.width or bottom - top > label.height):
            continue
        # Within the picture, also for regions at its edge.
        x = min(max(label.x, (right - left) / 2 + 2), image.width - (right - left) / 2 - 2)
        y = min(max(label.y, _TEXT_PX / 2 + 2), image.height - _TEXT_PX / 2 - 2)
        # White on black: some colours of outlines are too dark to be read.
        draw.text((x, y), text, _PAPER, font, anchor="mm", stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(image)


def _draw_outlines(
    panels: list[np.ndarray], regions: Iterable[OutlinedRegion], scales: tuple[float, float]
) -> Iterator[_Label]:
    """Draw outlines into the panels, and give the labels, which are drawn later so that no outline covers them."""
    for region, colour in zip(regions, outline_colours(), strict=False):
        left, top, width, height = region.box
        x, y = int(left * scales[0]), int(top * scales[1])
        # A region of a few pixels still has one in a small panel.
        wide, tall = max(1, round((left + width) * scales[0]) - x), max(1, round((top + height) * scales[1]) - y)
        mask = np.array(Image.fromarray(region.inner).resize((wide, tall), Image.Resampling.NEAREST))
        mask = mask[: panels[0].shape[0] - y, : panels[0].shape[1] - x]
        line = outline(mask)
        line |= outline(mask & ~line)  # two pixels wide
        for panel in panels:
            panel[y : y + mask.shape[0], x : x + mask.shape[1]][line] = colour
        rows, columns = np.nonzero(mask)
        if len(rows):
            # The pixel of the region that is nearest to its middle, which need not belong to it.
            nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
            where = x + int(columns[nearest]), y + int(rows[nearest])
            number = "" if region.number is None else str(region.number)
            yield _Label(number, f"{region.quality:.2f}", *where, wide, tall)


def _sheet(images: list[Image.Image], quality_map: np.ndarray, heading: str, font: Any) -> Image.Image:
    """Panels side by side, or below each other if they are wide, with a line of text and the colours' scale."""
    width, height = images[0].size
    beside = width <= 1.5 * height
    step_x, step_y = (width + _MARGIN_PX, 0) if beside else (0, height + _MARGIN_PX)
    sheet = Image.new("RGB", (width + step_x + 2 * _MARGIN_PX, height + step_y + 2 * _MARGIN_PX + _FOOT_PX), _PAPER)
    for number, image in enumerate(images):
        sheet.paste(image, (_MARGIN_PX + number * step_x, _MARGIN_PX + number * step_y))
    draw, middle = ImageDraw.Draw(sheet), sheet.height - _FOOT_PX / 2
    right = sheet.width - _MARGIN_PX
    high, low = f"{quality_map.max():.2f} best", f"worst {quality_map.min():.2f}"
    draw.text((right, middle), high, _INK, font, anchor="rm")
    bar = right - int(draw.textlength(high, font)) - 8 - _BAR_PX
    sheet.paste(Image.fromarray(colours(np.tile(np.linspace(0, 1, _BAR_PX), (_TEXT_PX, 1)))), (bar, round(middle) - 7))
    draw.text((bar - 8, middle), low, _INK, font, anchor="rm")
    room = bar - 16 - draw.textlength(low, font) - _MARGIN_PX
    while heading and draw.textlength(heading, font) > room:
        heading = heading[:-2].rstrip() + "\u2026" if len(heading) > 2 else ""
    draw.text((_MARGIN_PX, middle), heading, _INK, font, anchor="lm")
    return sheet


def _png(image: Image.Image, quality_map: np.ndarray) -> bytes:
    about = PngInfo()
    about.add_text("quality", f"{quality_map.min():.6f} dark to {quality_map.max():.6f} bright")
    stored = io.BytesIO()
    image.save(stored, "PNG", pnginfo=about, compress_level=6)
    return stored.getvalue()
