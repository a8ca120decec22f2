"""Frames of a video file, upright and in RGB, at even intervals. Needs PyAV (extra ``video``)."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pseudo_labels.errors import PocketiqaError, install_command, shown

_EVERY = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|f)")
_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0}
# A video that ends so much earlier than its header says was cut off.
_LOST_S = 1.0


@dataclass(frozen=True)
class Interval:
    """How far apart the frames are.

    Attributes:
        seconds: at least so many; 0 where ``frames`` counts.
        frames: every so manieth frame; 0 where ``seconds`` counts.
    """

    seconds: float = 0.0
    frames: int = 0


def interval_of(text: str) -> Interval:
    """``1s``, ``500ms``, ``2min`` or ``10f`` (every tenth frame).

    Raises:
        PocketiqaError: none of these, or nothing.
    """
    match = _EVERY.fullmatch(text.strip().lower())
    if match is None or not float(match[1]) or (match[2] == "f" and "." in match[1]):
        raise PocketiqaError(f"--every {text!r}: give a time such as 1s, 500ms or 2min, or 10f for every tenth frame")
    if match[2] == "f":
        return Interval(frames=int(match[1]))
    return Interval(seconds=float(match[1]) * _SECONDS[match[2]])


@dataclass(frozen=True)
class Frame:
    """A frame.

    Attributes:
        number: position among all frames of the video, from 0.
        time_s: since the beginning of the video.
        rgb: uint8 [H, W, 3], upright.
    """

    number: int
    time_s: float
    rgb: np.ndarray


@dataclass
class Ending:
    """What became of the rest of a video; set while its frames are read.

    Attributes:
        frames: how many were decoded.
        time_s: of the last one.
        reason: why not all was read; empty if it was.
    """

    frames: int = 0
    time_s: float = 0.0
    reason: str = ""


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise PocketiqaError(f"frames of videos need the package av (PyAV): {install_command('video')}") from error
    return av


def check_video(path: Path) -> None:
    """See that a file can be opened and has pictures.

    Raises:
        PocketiqaError: it is missing, no video, or PyAV is not installed.
    """
    with _opened(_av(), path):
        pass


class _opened:
    """The container and the video stream of a file, closed afterwards."""

    def __init__(self, av: Any, path: Path):
        self._av, self._path = av, path

    def __enter__(self) -> tuple[Any, Any]:
        path = self._path
        if path.is_dir():
            raise PocketiqaError(f"{path} is a folder: name one video file")
        if not path.is_file():
            raise PocketiqaError(f"{path} does not exist, or is no file: name a video file")
        try:
            # A playlist could name addresses elsewhere: only files are opened.
            self._container = self._av.open(str(path.resolve()), options={"protocol_whitelist": "file"})
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise PocketiqaError(
                f"{path} cannot be read as a video ({_said(error)}): it is broken, or of a kind that FFmpeg "
                "does not know"
            ) from error
        streams = self._container.streams.video
        name = self._container.format.name
        if name.endswith("_pipe") or name == "image2":
            self._container.close()
            raise PocketiqaError(f"{path} is a picture, or named like one: score it with pocketiqa score")
        # The cover of a song is a stream of one picture.
        streams = [one for one in streams if not _is_cover(one)]
        if not streams:
            self._container.close()
            raise PocketiqaError(f"{path} holds no video: name a file with moving pictures")
        streams[0].thread_type = "AUTO"
        return self._container, streams[0]

    def __exit__(self, *_: object) -> None:
        self._container.close()


def _is_cover(stream: Any) -> bool:
    return "attached_pic" in {flag.name for flag in stream.disposition}


def frames_of(path: Path, interval: Interval, ending: Ending, report: Callable[[int, int], None]) -> Iterator[Frame]:
    """Frames of a video in order, the first one always among them.

    Args:
        path: of the video.
        interval: how far apart they are.
        ending: is told how far the video was read, and why no farther.
        report: called with seconds read and in all (0 where the file does not say).

    Raises:
        PocketiqaError: see ``check_video``; or no frame at all can be decoded.
    """
    av = _av()
    with _opened(av, path) as (container, stream):
        total_s = _duration_s(container, stream, av)
        due_s, began_s = -math.inf, None
        try:
            for frame in container.decode(stream):
                began_s = (frame.time or 0.0) if began_s is None else began_s
                # Some containers have no times: then the rate gives them.
                time_s = frame.time - began_s if frame.time is not None else _by_rate(ending.frames, stream)
                number, ending.frames, ending.time_s = ending.frames, ending.frames + 1, max(ending.time_s, time_s)
                report(int(ending.time_s), math.ceil(total_s))
                # Half a microsecond: times are multiples of the stream's unit, and rounding must not skip one.
                if number % interval.frames == 0 if interval.frames else time_s >= due_s - 5e-7:
                    # From the first frame on in even steps; after a gap, as many as it swallowed are left out.
                    steps = 0.0 if interval.frames else math.floor((time_s + 5e-7) / interval.seconds) + 1
                    due_s = steps * interval.seconds
                    yield Frame(number, time_s, _upright(frame))
            report(math.ceil(total_s), math.ceil(total_s))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            ending.reason = f"broken after {ending.time_s:.3f} s ({_said(error)})"
        if not ending.frames:
            why = ending.reason or "no frame can be decoded"
            raise PocketiqaError(f"{path}: {why}: it is broken, or of a kind that this FFmpeg cannot decode")
        if not ending.reason and total_s - ending.time_s > _LOST_S + _frame_s(stream):
            ending.reason = f"ends after {ending.time_s:.3f} s, though its header says {total_s:.3f} s: it was cut off"


def _duration_s(container: Any, stream: Any, av: Any) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else 0.0


def _frame_s(stream: Any) -> float:
    return 1 / float(stream.average_rate) if stream.average_rate else 0.0


def _by_rate(number: int, stream: Any) -> float:
    return number * (_frame_s(stream) or 1 / 25)


def _upright(frame: Any) -> np.ndarray:
    rgb = frame.to_ndarray(format="rgb24")
    # Phones write how far the picture is to be turned, in degrees against the clock.
    turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns))


def _said(error: Exception) -> str:
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return shown(" ".join(str(words).split()))[:160]
