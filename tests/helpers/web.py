"""A little web server on this machine, which can also be slow, lie and lead elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(pages: dict[str, bytes | Answer]) -> Iterator[str]:
    """Serve pages by path; yields the address of the server. An ``Answer`` writes all of its answer itself."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path)
            if page is None:
                self.send_error(404)
            elif isinstance(page, bytes):
                self.send_response(200)
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)
            else:
                page(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def leading_to(address: str) -> Answer:
    """A redirection."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", address)
        handler.end_headers()

    return answer


def dripping(seconds: float, header: bytes = b"HTTP/1.0 200 OK\r\n\r\n", drop: bytes = b"x") -> Answer:
    """The header, then a byte every 20 ms."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        end = time.monotonic() + seconds
        with suppress(OSError):  # the reader has gone
            handler.wfile.write(header)
            while time.monotonic() < end:
                handler.wfile.write(drop)
                time.sleep(0.02)

    return answer


def raw(data: bytes) -> Answer:
    """These very bytes, header and all."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):  # the reader has gone
            handler.wfile.write(data)

    return answer
