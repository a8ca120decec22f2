"""Small videos whose frames tell their number."""

import wave
from pathlib import Path

import av
import numpy as np

RATE = 10


def shade(number: int) -> float:
    """Mean gray of a frame."""
    return 40 + 5 * (number % 35)


def write_video(path: Path, *, frames: int, size: tuple[int, int] = (64, 96), rotation: int = 0) -> Path:
    """A video of gray frames with a bright left upper corner, ``RATE`` a second.

    Args:
        path: its suffix chooses the container.
        frames: how many.
        size: height and width.
        rotation: degrees against the clock that a player is asked to turn it by.
    """
    height, width = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE, options={"qscale": "1", "flags": "qscale"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate, stream.gop_size = 2_000_000, 1
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            rgb = np.full((height, width, 3), shade(number))
            rgb[: height // 4, : width // 4] += 40
            rgb[height // 4 : height // 2, : width // 4] -= 40
            for packet in stream.encode(av.VideoFrame.from_ndarray(rgb.clip(0, 255).astype(np.uint8), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_sound(path: Path) -> None:
    """A tenth of a second of silence, without pictures."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
