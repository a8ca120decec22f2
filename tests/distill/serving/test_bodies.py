"""Paths of requests: only regular files below the root, whatever links and dots say."""

import os
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException

from distill.serving.bodies import below


def test_a_file_below_the_root_is_given_with_its_links_followed(root: Path):
    (root / "inside.png").symlink_to(root / "below" / "b.png")
    assert below(root, "a.png") == Path(os.path.realpath(root / "a.png"))
    assert below(root, "./below/../a.png") == Path(os.path.realpath(root / "a.png"))
    assert below(root, "inside.png") == Path(os.path.realpath(root / "below" / "b.png"))


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("../outside.png", 403),
        ("link.png", 403),
        ("/etc/passwd", 403),
        ("below/../../outside.png", 403),
        ("none.png", 404),
        ("a.png/b", 404),
        ("below", 404),
        ("pipe", 404),
        ("", 422),
        (None, 422),
        ("\ud800", 422),
        ("x" * 5000, 422),
    ],
)
def test_everything_else_is_refused(path: Any, code: int, root: Path):
    os.mkfifo(root / "pipe")
    with pytest.raises(HTTPException) as refused:
        below(root, path)
    assert refused.value.status_code == code


def test_without_a_root_there_are_no_files():
    with pytest.raises(HTTPException) as refused:
        below(None, "a.png")
    assert refused.value.status_code == 403
