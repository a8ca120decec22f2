"""Small ICC profiles, written from the specification (ICC.1:2001-04 and ICC.1:2022), with published numbers."""

import struct

import numpy as np

# XYZ of the primaries, adapted to D50 (B. Lindbloom, "RGB/XYZ Matrices"; Apple's Display P3 profile).
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))
_D50 = (0.9642, 1.0, 0.8249)
# Exponent and the four constants of IEC 61966-2-1, as parametric curve of type 3.
SRGB_CURVE = (3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def matrix_profile(primaries: tuple[tuple[float, ...], ...], curve: bytes) -> bytes:
    """An RGB display profile of three primaries and one curve."""
    tags = {f"{name}XYZ".encode(): _xyz(value) for name, value in zip("rgb", primaries, strict=True)}
    return profile(b"RGB ", tags | {f"{name}TRC".encode(): curve for name in "rgb"})


def gray_profile(curve: bytes) -> bytes:
    return profile(b"GRAY", {b"kTRC": curve})


def cmyk_profile() -> bytes:
    """Inks as a table of 2x2x2x2 Lab colours (lut8Type): paper is white, each ink has a colour of its own."""
    nodes = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(16, 4)
    lab = np.array([100.0, 0, 0]) + nodes @ np.array([[-40, -35, -45], [-50, 70, -5], [-8, -5, 85], [-80, 0, 0]])
    table = np.clip(lab * (2.55, 1, 1) + (0, 128, 128), 0, 255).astype(np.uint8).tobytes()
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(np.eye(3) * 65536).astype(int).ravel().tolist())
    lut = b"mft1\0\0\0\0\x04\x03\x02\0" + matrix + 4 * identity + table + 3 * identity
    return profile(b"CMYK", {b"A2B0": lut, b"A2B1": lut}, connection=b"Lab ", kind=b"prtr")


def gamma_curve(exponent: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256)) + bytes(2)


def sampled_curve(samples: np.ndarray) -> bytes:
    """Linear light at equal steps, values in [0, 1]."""
    return b"curv\0\0\0\0" + struct.pack(">I", len(samples)) + np.rint(samples * 65535).astype(">u2").tobytes()


def parametric_curve(kind: int, *numbers: float) -> bytes:
    fixed = [round(number * 65536) for number in numbers]
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + struct.pack(f">{len(fixed)}i", *fixed)


def profile(space: bytes, tags: dict[bytes, bytes], *, connection: bytes = b"XYZ ", kind: bytes = b"mntr") -> bytes:
    """Header, tag table and tags."""
    tags = {b"wtpt": _xyz(_D50)} | tags
    entries, body = b"", b""
    start = 132 + 12 * len(tags)
    for name, data in tags.items():
        padded = data + bytes(-len(data) % 4)
        entries += name + struct.pack(">2I", start + len(body), len(data))
        body += padded
    white = struct.pack(">3i", *(round(value * 65536) for value in _D50))
    head = struct.pack(">I4sI", start + len(body), b"test", 0x04000000) + kind + space + connection
    head += bytes(12) + b"acsp" + bytes(28) + white
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + body


def _xyz(value: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(part * 65536) for part in value))
