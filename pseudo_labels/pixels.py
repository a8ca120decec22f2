"""Decoded samples of any kind -> sRGB uint8: depth, colour, transparency; for ``images`` alone, which says the rules.

A picture is converted whole or strip by strip, with the same pixels.
"""

from dataclasses import dataclass

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
)

from pseudo_labels import colour_profiles, tiff
from pseudo_labels.limits import FileSlices
from pseudo_labels.records import ImageError, Status

# Formats where an alpha channel of nothing but 0 is an empty fourth byte, rather than a wish.
_ALPHA_MAY_BE_EMPTY = (
    BmpImagePlugin.BmpImageFile,
    Jpeg2KImagePlugin.Jpeg2KImageFile,
    PngImagePlugin.PngImageFile,
    TiffImagePlugin.TiffImageFile,
)


@dataclass(frozen=True)
class Meaning:
    """What the samples of a picture mean, so that a strip of it becomes what it would in the whole.

    Attributes:
        image: the whole picture, loaded; a strip has neither its class nor its tags.
        background: RGB that shows through transparent pixels.
        colour: the conversion to sRGB; None where there is none.
        hides_everything: its alpha channel is 0 everywhere, in a format where that is not believed.
    """

    image: Image.Image
    background: tuple[int, int, int]
    colour: colour_profiles.Conversion | None
    hides_everything: bool


def declared_colour(
    image: Image.Image, data: bytes | FileSlices, notes: list[str] | None
) -> colour_profiles.Conversion | None:
    """The conversion that an image declares, if it is of the image's own kind: gray, RGB or CMYK.

    Args:
        image: as Pillow opened it.
        data: its file; empty if there is none any more.
        notes: a sentence is appended if a profile is ignored.

    Raises:
        ImageError: NOT_AN_IMAGE, high dynamic range.
    """
    try:
        declared = colour_profiles.declared_by(image, data)
        if declared is None:
            return None
        space = colour_profiles.space_of(declared)
        own = "CMYK" if image.mode == "CMYK" else "L" if image.mode.startswith(("1", "L", "I", "F")) else "RGB"
        # Gray pictures often have the profile of the colour picture that they were made from.
        if space != own and (space, own) != ("RGB", "L"):
            raise colour_profiles.ProfileError(f"it is of {space} pixels, these are {own}")
        return colour_profiles.conversion(declared)
    except colour_profiles.NoWhiteError as error:
        raise ImageError(Status.NOT_AN_IMAGE, str(error)) from error
    except colour_profiles.ProfileError as error:
        if notes is not None:
            notes.append(f"the colour profile is ignored: {error}")
        return None


def as_rgb(image: Image.Image, meaning: Meaning, top: int = 0) -> np.ndarray:
    """uint8 HxWx3, sRGB, not turned yet, of a picture or of its strip from row ``top`` on."""
    colour = meaning.colour
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return _deep_gray(image, meaning)
    if image.mode == "LAB":
        return colour_profiles.lab_conversion()(image)
    if image.mode == "CMYK":
        return np.array(image.convert("RGB")) if colour is None else colour(image)
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data and not meaning.hides_everything:
        return _on_background(image, meaning)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    rgb = np.array(rgb) if colour is None else colour(rgb)
    return _on_canvas(rgb, meaning, top)


def hides_everything(image: Image.Image) -> bool:
    """Whether an alpha channel is 0 everywhere in a format where it is not believed then."""
    alpha = image.getchannel("A") if isinstance(image, _ALPHA_MAY_BE_EMPTY) and "A" in image.getbands() else None
    return alpha is not None and alpha.getextrema() == (0, 0)


def _on_background(image: Image.Image, meaning: Meaning) -> np.ndarray:
    rgba = image.convert("RGBA")
    if meaning.colour is not None:
        alpha = rgba.getchannel("A")
        rgba = Image.fromarray(meaning.colour(rgba.convert("RGB")))
        rgba.putalpha(alpha)
    canvas = Image.new("RGBA", image.size, (*meaning.background, 255))
    canvas.alpha_composite(rgba)
    return np.array(canvas.convert("RGB"))


def _on_canvas(rgb: np.ndarray, meaning: Meaning, first_row: int) -> np.ndarray:
    """Fill what the first frame of a GIF leaves free; Pillow fills it with colour 0 of the palette."""
    image = meaning.image
    if not isinstance(image, GifImagePlugin.GifImageFile) or image.tell() != 0 or image.dispose_extent is None:
        return rgb
    left, top, right, bottom = image.dispose_extent
    if (left, top, right, bottom) == (0, 0, *image.size):
        return rgb
    canvas = np.empty_like(rgb)
    canvas[:] = meaning.background
    # The part of the frame that lies in this strip.
    inside = slice(max(0, top - first_row), max(0, bottom - first_row)), slice(left, right)
    canvas[inside] = rgb[inside]
    return canvas


def _deep_gray(image: Image.Image, meaning: Meaning) -> np.ndarray:
    """Gray of more than 8 bits: scaled to 8, never clipped."""
    samples = np.asarray(image)
    gray = _scaled_float(samples) if image.mode == "F" else _scaled_integer(samples, tiff.white_of(meaning.image))
    if tiff.is_white_zero(meaning.image):
        gray = 255 - gray
    rgb = np.repeat(gray[:, :, None], 3, axis=2)
    if meaning.colour is not None:
        rgb = meaning.colour(Image.fromarray(rgb))
    key = image.info.get("transparency")
    if isinstance(key, int):
        rgb[samples == key] = meaning.background
    return rgb


def _scaled_integer(samples: np.ndarray, white: int) -> np.ndarray:
    return ((samples.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)


def _scaled_float(samples: np.ndarray) -> np.ndarray:
    if not (np.isfinite(samples).all() and samples.min() >= 0 and samples.max() <= 1):
        raise ImageError(Status.NOT_AN_IMAGE, tiff.no_white("float samples outside [0, 1]"))
    return np.rint(samples * 255).astype(np.uint8)
