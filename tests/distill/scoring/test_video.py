"""Frames of videos: when they are, upright, and what cannot be read."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.scoring.video import Ending, Frame, Interval, check_video, frames_of, interval_of
from pseudo_labels.errors import PocketiqaError
from tests.helpers.videos import RATE, shade, write_sound, write_video


def read(path: Path, interval: Interval) -> tuple[list[Frame], Ending]:
    ending = Ending()
    return list(frames_of(path, interval, ending, lambda done, total: None)), ending


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mkv", frames=33)


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("1s", Interval(seconds=1)),
        ("0.25s", Interval(seconds=0.25)),
        ("500ms", Interval(seconds=0.5)),
        ("2 min", Interval(seconds=120)),
        ("10F", Interval(frames=10)),
    ],
)
def test_intervals_are_times_or_numbers_of_frames(text: str, interval: Interval):
    assert interval_of(text) == interval


@pytest.mark.parametrize("text", ["", "1", "0s", "-1s", "1.5f", "1h", "s", "0f", "nan s"])
def test_other_words_are_no_intervals(text: str):
    with pytest.raises(PocketiqaError, match="give a time such as 1s"):
        interval_of(text)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1s", [0, 10, 20, 30]),
        ("700ms", [0, 7, 14, 21, 28]),
        ("250ms", [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28, 30]),
        ("8f", [0, 8, 16, 24, 32]),
        ("10ms", list(range(33))),
        ("1min", [0]),
    ],
)
def test_frames_come_at_even_intervals(video: Path, text: str, numbers: list[int]):
    frames, ending = read(video, interval_of(text))
    assert [frame.number for frame in frames] == numbers
    np.testing.assert_allclose([frame.time_s for frame in frames], np.array(numbers) / RATE, atol=1e-3)
    assert (ending.frames, ending.reason) == (33, "")
    # Each picture is the one of its number.
    for frame in frames:
        assert frame.rgb.shape == (64, 96, 3)
        assert abs(float(frame.rgb.mean()) - shade(frame.number)) < 4


def test_a_video_that_was_cut_off_says_how_far_it_was_read(video: Path, tmp_path: Path):
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    frames, ending = read(cut, interval_of("500ms"))
    assert 0 < ending.frames < 30
    assert len(frames) == 1 + int((ending.frames - 1) // 5)
    assert "header says 3." in ending.reason or "broken after" in ending.reason


def test_pictures_of_a_turned_phone_are_upright(tmp_path: Path):
    frames, _ = read(write_video(tmp_path / "turned.mp4", frames=2, rotation=90), interval_of("1s"))
    assert frames[0].rgb.shape == (96, 64, 3)
    plain, _ = read(write_video(tmp_path / "plain.mp4", frames=2), interval_of("1s"))
    # A quarter turn against the clock, as the file asks for.
    assert np.abs(np.rot90(plain[0].rgb).astype(int) - frames[0].rgb).mean() < 2


def test_what_is_no_video_is_refused(tmp_path: Path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    write_sound(tmp_path / "sound.wav")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video " * 99)
    for name, message in (
        ("a.png", "is a picture, or named like one: score it with pocketiqa score"),
        ("empty.mp4", "cannot be read as a video"),
        ("text.mp4", "cannot be read as a video"),
        ("nothing.mp4", "does not exist"),
        ("sound.wav", "holds no video"),
        (".", "is a folder"),
    ):
        with pytest.raises(PocketiqaError, match=message):
            check_video(tmp_path / name)


def test_a_playlist_opens_no_address(tmp_path: Path):
    (tmp_path / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(PocketiqaError, match=r"list\.m3u8"):
        read(tmp_path / "list.m3u8", interval_of("1s"))


def test_without_pyav_the_extra_is_named(video: Path, monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def refuse(name: str, *args: Any, **options: Any) -> Any:
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'", name="av")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(PocketiqaError, match=r"need the package av .*\[video\]"):
        check_video(video)
