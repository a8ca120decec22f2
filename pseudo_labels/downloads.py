"""Images from http and https addresses: a bounded size, a bounded time, and no way to any other scheme.

Standard library only. Proxies of the environment (``HTTPS_PROXY`` and so on) are used.
"""

import http.client
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from pseudo_labels.defaults import DOWNLOAD_MB, DOWNLOAD_S
from pseudo_labels.errors import PocketiqaError, shown
from pseudo_labels.images import MAX_BYTES
from pseudo_labels.records import ImageError, Status

_BLOCK = 1 << 16
_GONE = {404, 410}
_AGENT = "pocketiqa"


def check_address(address: str) -> None:
    """Refuse an address that can never be fetched, before any work.

    Raises:
        PocketiqaError: another scheme, no host, a name and password, or characters that no address has.
    """
    try:
        parts = urlsplit(address)
        wrong = parts.port is not None and parts.port < 1
    except ValueError as error:
        raise PocketiqaError(f"{shown(address)} is no address: {error}") from error
    if parts.scheme.lower() not in ("http", "https"):
        raise PocketiqaError(
            f"{shown(address)}: addresses are http:// or https://; a file of another kind of storage is fetched first, "
            "or read into a pool with `pocketiqa pool`"
        )
    if parts.username is not None or parts.password is not None:
        # Not repeated: it would stand in logs.
        raise PocketiqaError(
            f"the address of {shown(parts.hostname or '')} holds a user name or a password, which rows would repeat: "
            "fetch the image first"
        )
    if wrong or not parts.hostname or any(letter.isspace() or not letter.isprintable() for letter in address):
        raise PocketiqaError(f"{shown(address)} is no address that can be fetched: http://HOST/PATH is needed")


@dataclass(frozen=True)
class Downloads:
    """Bounds of what is fetched.

    Attributes:
        max_bytes: largest image in bytes.
        limit_s: seconds for all of one image, from the connection to its last byte.
    """

    max_bytes: int = DOWNLOAD_MB * 1_000_000
    limit_s: float = DOWNLOAD_S

    def __post_init__(self) -> None:
        if not 0 < self.max_bytes <= MAX_BYTES:
            raise PocketiqaError(
                f"the largest download is {self.max_bytes / 1e6:g} MB, but above 0 and at most {MAX_BYTES / 1e6:g} is "
                "needed"
            )
        if not 0 < self.limit_s <= 86400:
            raise PocketiqaError(
                f"the time for a download is {self.limit_s:g} s, but above 0 and at most a day is needed"
            )

    def read(self, address: str) -> bytes:
        """The bytes at an address. Thread-safe.

        Raises:
            ImageError: MISSING (no such host or page), UNREADABLE (refused, broken, too slow) or TOO_LARGE.
        """
        check_address(address)
        with _translated(self.limit_s), _deadline(self.limit_s) as watch:
            # ASCII: names of other letters are percent-encoded, as browsers do.
            wanted = urllib.request.Request(
                _ascii(address), headers={"User-Agent": _AGENT, "Accept": "image/*, */*;q=0.1"}
            )
            with _opener(watch).open(wanted, timeout=self.limit_s) as answer:
                self._check(int(answer.headers.get("Content-Length") or 0))
                data = bytearray()
                # Of what was announced or not: never more than the bound and one block.
                while block := answer.read(_BLOCK):
                    data += block
                    self._check(len(data))
                announced = answer.headers.get("Content-Length")
                if announced is not None and len(data) < int(announced):
                    raise ImageError(Status.UNREADABLE, f"the server sent {len(data)} of {int(announced)} bytes")
        return bytes(data)

    def _check(self, size: int) -> None:
        if size > self.max_bytes:
            raise ImageError(
                Status.TOO_LARGE, f"more than {self.max_bytes / 1e6:g} MB, the largest download (--max-download)"
            )


class _Watch:
    """Ends the connections of one download when its time is over: a server may send a byte now and then for ever."""

    def __init__(self) -> None:
        self.is_over = False
        self._sockets: list[socket.socket] = []

    def add(self, connected: socket.socket) -> None:
        self._sockets.append(connected)
        if self.is_over:  # a redirection was followed at this very moment
            self.end()

    def end(self) -> None:
        self.is_over = True
        for connected in self._sockets:
            with suppress(OSError):  # closed already
                connected.shutdown(socket.SHUT_RDWR)


@contextmanager
def _deadline(limit_s: float) -> Iterator[_Watch]:
    watch = _Watch()
    timer = threading.Timer(limit_s, watch.end)
    timer.daemon = True
    timer.start()
    try:
        yield watch
    except ImageError:
        raise
    except Exception as error:
        if watch.is_over:
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
    if watch.is_over:  # what was read to its end without an announced length may be cut
        raise ImageError(Status.UNREADABLE, _slow(limit_s))


def _opener(watch: _Watch) -> urllib.request.OpenerDirector:
    def watched(kind: type[http.client.HTTPConnection]) -> type[http.client.HTTPConnection]:
        class Watched(kind):
            def connect(self) -> None:
                super().connect()
                # The connection forgets its socket once the header is read.
                watch.add(self.sock)

        return Watched

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(watched(http.client.HTTPConnection), req)  # type: ignore[arg-type]

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(watched(http.client.HTTPSConnection), req)  # type: ignore[arg-type]

    opener = urllib.request.OpenerDirector()
    # Named one by one: the usual ones open files and FTP as well, to which a redirection could lead.
    for handler in (
        urllib.request.ProxyHandler(),
        Http(),
        Https(),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme.lower() not in ("http", "https"):
            raise ImageError(Status.UNREADABLE, f"the server leads to {shown(newurl)}, which is not http or https")
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme.lower() == "http":
            raise ImageError(
                Status.UNREADABLE, f"the server leads from https to {shown(newurl)}, which is not encrypted"
            )
        return super().redirect_request(req, fp, code, msg, headers=headers, newurl=newurl)


def _ascii(address: str) -> str:
    parts = urlsplit(address)
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    path, query = (quote(text, safe="/%:@!$&'()*+,;=~?-._") for text in (parts.path, parts.query))
    return parts._replace(netloc=host, path=path, query=query, fragment="").geturl()


def _slow(limit_s: float) -> str:
    return f"the server took longer than {limit_s:g} s (--download-time)"


@contextmanager
def _translated(limit_s: float) -> Iterator[None]:
    """Errors of connections as ImageError."""
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            status = Status.MISSING if error.code in _GONE else Status.UNREADABLE
            raise ImageError(status, f"the server says {error.code} {error.reason}") from error
    except TimeoutError as error:
        raise ImageError(Status.UNREADABLE, _slow(limit_s)) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise ImageError(Status.UNREADABLE, _slow(limit_s)) from error
        if isinstance(error.reason, socket.gaierror):
            raise ImageError(Status.MISSING, "no such host, or no network") from error
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise ImageError(Status.UNREADABLE, f"cannot be fetched ({reason})") from error
    except ImageError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ImageError(Status.UNREADABLE, f"cannot be fetched ({error or type(error).__name__})") from error
