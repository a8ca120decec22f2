import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pseudo_labels.downloads import Downloads, check_address
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import ImageError, Status
from tests.helpers.web import Answer, dripping, leading_to, raw, serving

OK = b"HTTP/1.0 200 OK\r\n"


def test_bytes_come_as_they_are_also_through_redirections_and_odd_names():
    data = bytes(range(256)) * 1000
    pages: dict[str, bytes | Answer] = {"/a%20%C3%A9.jpg?x=1": data, "/b": leading_to("/a%20%C3%A9.jpg?x=1")}
    pages["/unannounced"] = raw(OK + b"\r\n" + data)
    with serving(pages) as server:
        for path in ("/a%20%C3%A9.jpg?x=1", "/a%20é.jpg?x=1#part", "/b", "/unannounced"):
            assert Downloads().read(server + path) == data
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(Downloads().read, [server + "/b"] * 16)) == {data}


@pytest.mark.parametrize(
    ("page", "status", "reason"),
    [
        (None, Status.MISSING, "the server says 404 Not Found"),
        (raw(b"HTTP/1.0 500 Broken\r\n\r\n"), Status.UNREADABLE, "the server says 500 Broken"),
        (bytes(1001), Status.TOO_LARGE, "more than 0.001 MB, the largest download"),
        (raw(OK + b"\r\n" + bytes(100_000)), Status.TOO_LARGE, "more than 0.001 MB"),
        (raw(OK + b"Content-Length: 90\r\n\r\n" + bytes(20)), Status.UNREADABLE, "20"),
        (raw(OK + b"Content-Length: many\r\n\r\n"), Status.UNREADABLE, "cannot be fetched"),
        (raw(b"nonsense\r\n\r\n"), Status.UNREADABLE, "cannot be fetched"),
        (raw(b""), Status.UNREADABLE, "cannot be fetched"),
        (leading_to("/page"), Status.UNREADABLE, "infinite loop"),
        (leading_to("file:///etc/passwd"), Status.UNREADABLE, "not allowed"),
        (leading_to("ftp://127.0.0.1/x"), Status.UNREADABLE, "which is not http or https"),
    ],
)
def test_faults_of_a_server_are_a_status_and_a_reason(page: bytes | Answer | None, status: Status, reason: str):
    with serving({} if page is None else {"/page": page}) as server, pytest.raises(ImageError, match=reason) as caught:
        Downloads(max_bytes=1000).read(f"{server}/page")
    assert caught.value.status == status


@pytest.mark.parametrize("page", [dripping(20), dripping(20, OK, b"X-A: b\r\n"), dripping(20, OK + b"X-A: ")])
def test_a_server_that_drips_is_left_when_the_time_is_over(page: Answer):
    """Each read gives a byte in time, so that a limit for each read alone would never be reached."""
    started = time.monotonic()
    with serving({"/page": page}) as server, pytest.raises(ImageError, match=r"took longer than 0\.3 s") as caught:
        Downloads(limit_s=0.3).read(f"{server}/page")
    assert caught.value.status == Status.UNREADABLE
    assert time.monotonic() - started < 5


def test_nobody_there_is_a_reason():
    with serving({}) as server:
        pass
    with pytest.raises(ImageError, match=r"cannot be fetched \(Connection refused\)"):
        Downloads().read(f"{server}/x")
    with pytest.raises(ImageError) as caught:
        Downloads(limit_s=5).read("http://no-such-host.invalid/x")
    assert caught.value.status in (Status.MISSING, Status.UNREADABLE)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://bucket/a.jpg", "addresses are http:// or https://.*pocketiqa pool"),
        ("file:///etc/passwd", "addresses are http:// or https://"),
        ("http://me:secret@host/x", "the address of 'host' holds a user name or a password"),
        ("http:///x", "HOST/PATH is needed"),
        ("http://host/a b", "HOST/PATH is needed"),
        ("http://host:99999/x", "is no address: Port out of range"),
        ("http://[1/x", "is no address"),
    ],
)
def test_what_can_never_be_fetched_is_refused_before_any_work(address: str, message: str):
    with pytest.raises(PocketiqaError, match=message) as caught:
        check_address(address)
    assert "secret" not in str(caught.value)


def test_bounds_are_checked():
    for words in ({"max_bytes": 0}, {"max_bytes": 500_000_000}, {"limit_s": 0.0}, {"limit_s": float("nan")}):
        with pytest.raises(PocketiqaError, match="above 0 and at most"):
            Downloads(**words)  # type: ignore[arg-type]
