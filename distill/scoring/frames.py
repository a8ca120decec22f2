"""``pocketiqa frames``: scores of the frames of a video, and the best of them as pictures, in a folder.

Base install and PyAV. The folder holds ``frames.csv`` and one PNG for each of the best frames; it is marked complete
when all is written. A killed run is begun anew by the same command.
"""

import heapq
import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from distill.scoring.columns import Column, Kind, Layout, model_columns
from distill.scoring.row_files import write_rows
from distill.scoring.video import Ending, Frame, check_video, frames_of, interval_of
from distill.terminal import console
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import checksummed_json, read_record, sha256_file, write_atomic
from pseudo_labels.outputs import Claim, claim, exclusively, finish
from pseudo_labels.records import Status
from students.runtime import Row, Scorer, row_of

KIND = "frames"
TABLE, SUMMARY = "frames.csv", "frames.json"
MOST_TOP = 100
"""So many frames are held in memory."""
By = Literal["score", "sharpness"]
# Sharpness of frames of one video is compared at one size, so that it does not follow the video's resolution alone.
_SHARPNESS_PX = 1024


@dataclass(frozen=True, slots=True)
class FrameRow(Row):
    """The result of a frame: ``path`` is the video.

    Attributes:
        frame: number from 0 among all frames of the video.
        time_s: since its beginning.
        sharpness: see ``sharpness_of``.
        file: name of the picture that was written of it; empty for none.
    """

    frame: int | None = None
    time_s: float | None = None
    sharpness: float | None = None
    file: str = ""


FRAME_COLUMNS = (
    Column("frame", Kind.WHOLE, attrgetter("frame"), heading="frame"),
    Column("time_s", Kind.NUMBER, attrgetter("time_s"), heading="time (s)"),
    Column("score", Kind.NUMBER, lambda row: row.score, heading="score"),
    Column("sharpness", Kind.NUMBER, attrgetter("sharpness"), heading="sharpness"),
    Column("status", Kind.TEXT, lambda row: str(row.status)),
    Column("reason", Kind.TEXT, lambda row: row.reason),
    Column("file", Kind.TEXT, attrgetter("file"), heading="file", last=True),
    Column("path", Kind.PATH, lambda row: row.path),
)


def sharpness_of(rgb: np.ndarray) -> float:
    """Standard deviation of the Laplacian of the luma, of the frame with at most 1024 pixels on its longer side.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy" (2000), take the variance. It compares frames
    of one video: texture and noise raise it as focus does.

    Args:
        rgb: uint8 [H, W, 3], at least 3 pixels high and wide.
    """
    image = Image.fromarray(rgb).convert("L")
    image.thumbnail((_SHARPNESS_PX, _SHARPNESS_PX), Image.Resampling.BOX)
    luma = np.asarray(image, np.float32)
    middle = luma[1:-1, 1:-1]
    return float((luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * middle).std())


@dataclass(order=True)
class _Kept:
    """A frame among the best so far; of equal ones the earlier is better."""

    value: float
    earlier: int
    frame: Frame = field(compare=False)


def score_frames(
    video: Path,
    model: str | None = None,
    *,
    every: str,
    top: int,
    by: By = "score",
    out: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Score frames of a video and write the best of them; arguments as for the command.

    Returns:
        ``folder``, ``frames`` (scored), ``decoded``, ``reason`` (why not all was read; empty if it was) and ``best``:
        ``frame``, ``time_s``, ``score``, ``sharpness`` and ``file`` of each, the best first.

    Raises:
        PocketiqaError: no video, PyAV is missing, or a setting that means nothing.
        OutputConflictError: the folder holds something else, or another process works in it.
    """
    interval = interval_of(every)
    if not 0 <= top <= MOST_TOP:
        raise PocketiqaError(f"--top {top}: choose 0 to {MOST_TOP}")
    check_video(video)
    scorer = Scorer(model)
    folder = Path(f"{video.stem}-frames") if out is None else out
    # The pixels decide, wherever the file lies.
    spec = {"video": sha256_file(video), "model": scorer.digest, "every": every.strip().lower(), "top": top, "by": by}
    with exclusively(folder):
        if claim(folder, KIND, spec, overwrite=overwrite) is not Claim.DONE:
            work = _Work(video, scorer, folder, top=top, by=by)
            with console.progress(f"frames ({scorer.contract.name})") as report:
                ending = Ending()
                rows = list(work.rows(frames_of(video, interval, ending, report)))
            finish(folder, work.write(rows, ending))
        record = read_record(folder / SUMMARY, what="summary of frames")
    return {"folder": str(folder), **{key: value for key, value in record.items() if key != "checksum"}}


class _Work:
    def __init__(self, video: Path, scorer: Scorer, folder: Path, *, top: int, by: By):
        self._video, self._scorer, self._folder = video, scorer, folder
        self._top, self._by = top, by
        self._best: list[_Kept] = []

    def rows(self, frames: Iterator[Frame]) -> Iterator[FrameRow]:
        """A row a frame; the pixels of the best are remembered."""
        for frame in frames:
            row = self._row(frame)
            value = row.score if self._by == "score" else row.sharpness
            if value is not None and row.status == Status.OK and self._top:
                kept = _Kept(value, -frame.number, frame)
                if len(self._best) < self._top:
                    heapq.heappush(self._best, kept)
                else:
                    heapq.heappushpop(self._best, kept)
            yield row

    def _row(self, frame: Frame) -> FrameRow:
        row = row_of(self._video, lambda notes: self._scorer.score(frame.rgb))
        sharpness = sharpness_of(frame.rgb) if min(frame.rgb.shape[:2]) > 2 else None
        return FrameRow(
            row.path, row.score, row.status, row.reason, frame=frame.number, time_s=frame.time_s, sharpness=sharpness
        )

    def write(self, rows: list[FrameRow], ending: Ending) -> dict[str, Any]:
        """Write pictures, table and summary; returns their digests."""
        names: dict[int, str] = {}
        for place, kept in enumerate(sorted(self._best, reverse=True), start=1):
            name = f"{place:02}-{kept.frame.number:06}.png"
            names[kept.frame.number] = name
            stored = io.BytesIO()
            Image.fromarray(kept.frame.rgb).save(stored, "PNG", compress_level=3)
            write_atomic(self._folder / name, stored.getvalue())
        rows = [replace(row, file=names.get(-1 if row.frame is None else row.frame, "")) for row in rows]
        layout = Layout((*FRAME_COLUMNS, *model_columns(self._scorer.contract.name, self._scorer.digest)))
        write_rows(rows, "csv", self._folder / TABLE, layout=layout)
        columns = ("frame", "time_s", "score", "sharpness", "file")
        by_file = {row.file: {column: getattr(row, column) for column in columns} for row in rows if row.file}
        record = {
            "frames": sum(row.status == Status.OK for row in rows),
            "without": sum(row.status != Status.OK for row in rows),
            "decoded": ending.frames,
            "reason": ending.reason,
            "best": [by_file[name] for name in sorted(by_file)],
        }
        write_atomic(self._folder / SUMMARY, checksummed_json(record))
        return {name: sha256_file(self._folder / name) for name in (TABLE, SUMMARY, *names.values())}
