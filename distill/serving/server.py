"""Starts the server: the address, the socket, uvicorn."""

import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from pseudo_labels.errors import PocketiqaError, system_words

# Seconds for requests in work when the server is told to end.
_GRACE_S = 10
_BACKLOG = 128


def check_host(host: str, *, allow_remote: bool) -> None:
    """Refuse to listen where other machines could connect, unless that was asked for.

    Raises:
        PocketiqaError: names the option.
    """
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not allow_remote:
        raise PocketiqaError(
            f"--host {host} can be reached from other machines, and this server knows no passwords and no encryption: "
            "add --allow-remote if that is wanted, or listen on 127.0.0.1"
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        PocketiqaError: the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        # Now, so that whoever reads the address can connect: they wait until the first request is taken.
        opened.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        words = system_words(error)[0] if isinstance(error, OSError) else str(error)
        raise PocketiqaError(
            f"cannot listen on {host}, port {port}: {words}; choose another --host or --port"
        ) from error
    return opened


def run(app: FastAPI, opened: socket.socket, ready: Callable[[str], None]) -> None:
    """Answer requests until the process is told to end.

    Args:
        app: the application.
        opened: see ``listen``.
        ready: called with the address once the socket is bound.
    """
    host, port = opened.getsockname()[:2]
    ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=_GRACE_S
    )
    # Ctrl+C is how a server ends. uvicorn raises it again after what was in work is answered.
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[opened])
