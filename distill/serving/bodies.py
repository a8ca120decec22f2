"""What a request brings: an image, or the path of one below the server's folder; bounded in size and time."""

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import Any

from fastapi import HTTPException, Request

from pseudo_labels.errors import shown
from pseudo_labels.files import parse_json

_JSON = "application/json"
# A list of paths, and nothing else: larger ones are no honest requests.
_MOST_JSON_BYTES = 1 << 20


async def read_body(request: Request, most_bytes: int, seconds: float) -> bytes:
    """The body, in memory.

    Raises:
        HTTPException: 413 if it is larger, 408 if it does not arrive in time.
    """
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > most_bytes:
        raise too_large(most_bytes)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > most_bytes:
                    raise too_large(most_bytes)
                parts.append(part)
    except TimeoutError:
        raise too_slow(seconds) from None
    return b"".join(parts)


def too_large(most_bytes: int) -> HTTPException:
    """The answer to a body that is larger."""
    return HTTPException(413, f"the body has more than {most_bytes} bytes: send a smaller image, or raise --max-bytes")


def too_slow(seconds: float) -> HTTPException:
    """The answer to a body that does not arrive in time."""
    return HTTPException(408, f"the body did not arrive within {seconds:g} seconds")


def is_json(request: Request) -> bool:
    """Whether the body is JSON, and so names a path, in place of an image."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == _JSON


async def read_fields(request: Request, name: str, seconds: float) -> Any:
    """The value of the one field of a JSON object.

    Raises:
        HTTPException: 422 for anything else.
    """
    body = await read_body(request, _MOST_JSON_BYTES, seconds)
    try:
        record = parse_json(body)
    except (ValueError, UnicodeDecodeError) as error:
        raise HTTPException(422, f"the body is no JSON: {str(error)[:100]}") from None
    if not isinstance(record, dict) or set(record) != {name}:
        example = json.dumps({name: "photo.jpg" if name == "path" else ["photo.jpg"]})
        raise HTTPException(422, f"the body is {shown(record)}, but an object such as {example} is needed")
    return record[name]


def below(root: Path | None, path: Any) -> Path:
    """The file that a request names.

    Args:
        root: folder that paths are relative to; None if the server reads no files.
        path: what the request says.

    Raises:
        HTTPException: 403 if the server reads no files, or the path or a link on it leads out of the folder; 422 if it
            is no path; 404 if there is no such file.
    """
    if root is None:
        raise HTTPException(403, "this server reads no files: send the image itself, or start it with --root FOLDER")
    if not isinstance(path, str) or not path or "\x00" in path:
        raise HTTPException(422, f"path is {shown(path)}, but the path of an image below the server's folder is needed")
    try:
        file = Path(os.path.realpath(root / path))
        there = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        there, file = None, Path(os.path.realpath(root / path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no path"
        raise HTTPException(422, f"path {shown(path)} cannot be read: {reason}") from None
    # After links were followed: one that leads out of the folder is refused as ``..`` is, whether it is there or not.
    if not file.is_relative_to(os.path.realpath(root)):
        raise HTTPException(403, f"path {shown(path)} leads out of the server's folder")
    if there is None or not stat.S_ISREG(there.st_mode):
        raise HTTPException(404, f"there is no file {shown(path)} below the server's folder")
    return file
