"""A contact sheet: every distortion at five levels on one image."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pseudo_labels.crops import generator
from pseudo_labels.distort.catalogue import CATALOGUE, Distortion, check_image
from pseudo_labels.distort.scale import LEVELS
from pseudo_labels.outputs import NewFile, write_file

TILE_PX = 192
_GAP_PX = 4
_STRIP_PX = 26
_MARGIN_PX = 16
_COLUMNS = 2
_INK, _FAINT, _PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)

_ROW_WIDTH_PX = (LEVELS + 1) * (TILE_PX + _GAP_PX) - _GAP_PX
_ROW_HEIGHT_PX = _STRIP_PX + TILE_PX + 2 * _GAP_PX


def contact_sheet(rgb: np.ndarray) -> np.ndarray:
    """Every distortion in a row of its own: the image, then the levels 1 to 5.

    The image is cropped to its middle square and shrunk to the size of a tile before it is distorted, so that every
    pixel of a tile is one that the operator made. Within a row chance is the same: only the level changes.

    Args:
        rgb: uint8 HxWx3, sides of at least 64 pixels.

    Returns:
        The sheet, uint8 HxWx3.
    """
    tile = _middle_square(check_image(rgb))
    rows = -(-len(CATALOGUE) // _COLUMNS)
    size = (_COLUMNS * (_ROW_WIDTH_PX + _MARGIN_PX) + _MARGIN_PX, rows * _ROW_HEIGHT_PX + 2 * _MARGIN_PX)
    sheet = Image.new("RGB", size, _PAPER)
    for index, distortion in enumerate(CATALOGUE.values()):
        column, row = divmod(index, rows)
        left = _MARGIN_PX + column * (_ROW_WIDTH_PX + _MARGIN_PX)
        _draw_row(sheet, tile, distortion, left, _MARGIN_PX + row * _ROW_HEIGHT_PX)
    return np.array(sheet)


def write_contact_sheet(rgb: np.ndarray, out: NewFile | Path) -> None:
    """Write the contact sheet as a PNG file, whole or not at all.

    Args:
        rgb: uint8 HxWx3.
        out: path, or a file that was claimed (``outputs.new_file``).

    Raises:
        StorageFullError: the disk is full.
    """
    data = io.BytesIO()
    Image.fromarray(contact_sheet(rgb)).save(data, "PNG", compress_level=1)
    write_file(out, data.getvalue())


def _middle_square(rgb: np.ndarray) -> np.ndarray:
    side = min(rgb.shape[:2])
    top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
    square = Image.fromarray(rgb[top : top + side, left : left + side])
    return np.array(square.resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS))


def _draw_row(sheet: Image.Image, tile: np.ndarray, distortion: Distortion, left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    title, small = ImageFont.load_default(16), ImageFont.load_default(13)
    draw.text((left, top + 4), distortion.name, _INK, title)
    after = left + draw.textlength(distortion.name, title) + 10
    draw.text((after, top + 7), f"{distortion.family}, {distortion.source}", _FAINT, small)
    sheet.paste(Image.fromarray(tile), (left, top + _STRIP_PX))
    for level in range(1, LEVELS + 1):
        x = left + level * (TILE_PX + _GAP_PX)
        draw.text((x + TILE_PX, top + 7), f"level {level}", _FAINT, small, anchor="ra")
        # A generator in the same state for each level: along a row only the severity changes.
        distorted = distortion.apply(tile, level / LEVELS, generator("preview", distortion.name))
        sheet.paste(Image.fromarray(distorted), (x, top + _STRIP_PX))
