"""A real S3 server on loopback (moto), and a proxy before it that loses, delays and refuses what passes."""

import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

FAULTS = ("500", "503", "500 after", "slow", "cut")


@dataclass
class Faults:
    """What a proxy does to requests.

    Attributes:
        fraction: of the requests that meet a fault; the kinds of ``FAULTS`` follow from ``seed``.
        seed: of the choice.
        slow_s: how long a slow answer takes.
        seen: how often each kind happened; ``passed`` counts all requests.
    """

    fraction: float = 0.0
    seed: int = 0
    slow_s: float = 0.2
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._draw, self._lock = random.Random(self.seed), threading.Lock()

    def next(self) -> str:
        """The fault of the next request; empty for none."""
        with self._lock:
            fault = self._draw.choice(FAULTS) if self._draw.random() < self.fraction else ""
            self.seen.update(["passed", fault] if fault else ["passed"])
            return fault


_BUSY = b"<Error><Code>%s</Code><Message>please try again</Message></Error>"


def _handler(port: int, faults: Faults) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = faults.next()
            if fault in ("500", "503"):
                code = b"InternalError" if fault == "500" else b"SlowDown"
                return self._answer(int(fault), [("Content-Type", "application/xml")], _BUSY % code)
            if fault == "slow":
                time.sleep(faults.slow_s)
            server = http.client.HTTPConnection("127.0.0.1", port)
            try:
                server.request(self.command, self.path, body, dict(self.headers))
                answer = server.getresponse()
                data, headers = answer.read(), answer.getheaders()
            finally:
                server.close()
            if fault == "500 after":  # done, but whoever asked hears that it failed
                return self._answer(500, [("Content-Type", "application/xml")], _BUSY % b"InternalError")
            return self._answer(answer.status, headers, data, cut=fault == "cut")

        def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, *, cut: bool = False) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            length = next((value for name, value in headers if name.lower() == "content-length"), str(len(data)))
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.close_connection = True
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients are killed in these tests."""


@dataclass(frozen=True)
class S3:
    """A server and its proxy.

    Attributes:
        endpoint: of the proxy.
        faults: what the proxy does; may be changed while it runs.
    """

    endpoint: str
    faults: Faults

    def environment(self) -> dict[str, str]:
        """What a process needs to find the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            # The client of S3 tries once: what is tested is what pocketiqa does.
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def s3_server(bucket: str) -> Iterator[S3]:
    """A server with an empty bucket; skips the test where the packages are missing."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install '.[s3]'")
    pytest.importorskip("moto", reason="moto is not installed: pip install '.[dev]'")
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    faults = Faults()
    try:
        _, port = server.get_host_and_port()
        proxy = _Proxy(("127.0.0.1", 0), _handler(port, faults))
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        try:
            s3 = S3(f"http://127.0.0.1:{proxy.server_address[1]}", faults)
            with pytest.MonkeyPatch.context() as patch:
                for name, value in s3.environment().items():
                    patch.setenv(name, value)
                import s3fs

                s3fs.S3FileSystem.clear_instance_cache()
                s3fs.S3FileSystem().mkdir(bucket)
                yield s3
                s3fs.S3FileSystem.clear_instance_cache()
        finally:
            proxy.shutdown()
            proxy.server_close()
    finally:
        server.stop()
