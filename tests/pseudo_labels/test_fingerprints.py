"""The difference hash: against imagehash, on changes of one scene, and the rule for flat pictures."""

import imagehash
import numpy as np
import pytest
from PIL import Image

from pseudo_labels.fingerprints import Fingerprint, fingerprint
from pseudo_labels.images import decode, load
from pseudo_labels.photos import bundled_photographs
from tests.helpers.encoders import encode, picture


def bits_apart(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_hash_says_where_it_gets_brighter() -> None:
    # Nine strips, each brighter or darker than the one before it as the bits of 0xB4 say.
    levels = np.cumsum([100, *(24 if 0xB4 >> bit & 1 else -24 for bit in range(7, -1, -1))])
    strips = levels.repeat(32).astype(np.uint8)[None, :, None].repeat(256, axis=0).repeat(3, axis=2)
    assert fingerprint(strips) == Fingerprint("b4" * 8, False)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "china", "rocket", "camera", "motorcycle"])
def test_hash_survives_what_does_not_change_the_scene(name: str) -> None:
    rgb = load(bundled_photographs()[name])
    image = Image.fromarray(rgb)
    original = fingerprint(rgb).dhash
    smaller = fingerprint(np.asarray(image.resize((image.width // 2, image.height // 2)))).dhash
    jpeg = fingerprint(decode(encode(rgb, "JPEG", quality=30))).dhash
    darker = fingerprint((rgb * 0.8).astype(np.uint8)).dhash
    assert max(bits_apart(original, changed) for changed in (smaller, jpeg, darker)) <= 4


def test_flat_pictures_are_told_from_scenes() -> None:
    generator = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(-1, 1, 128), np.linspace(-1, 1, 96))
    flat = {
        "black": 0 * across,
        "white": 0 * across + 255,
        "noise": 128 + generator.normal(0, 8, across.shape),
        "sky": 200 + 5 * down + generator.normal(0, 2, across.shape),
        "ramp": 127 + 127 * across,
        "mirrored ramp": 127 - 127 * across,
        "vertical ramp": 127 + 127 * down,
        "vignetted wall": 40 - 6 * np.hypot(across, down),
    }
    described = {
        name: fingerprint(gray.astype(np.uint8)[..., None].repeat(3, axis=2)).is_flat for name, gray in flat.items()
    }
    assert described == dict.fromkeys(flat, True)
    assert not any(fingerprint(picture(seed)).is_flat for seed in range(50))


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_the_bits_are_those_of_imagehash(name: str) -> None:
    rgb = load(bundled_photographs()[name])
    assert fingerprint(rgb).dhash == str(imagehash.dhash(Image.fromarray(rgb)))
