"""The process: where it listens, how it ends."""

import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest

from distill.serving.server import check_host, listen
from pseudo_labels.errors import PocketiqaError
from tests.helpers.imports import ROOT


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_other_machines_only_when_asked(host: str):
    with pytest.raises(PocketiqaError, match="--allow-remote"):
        check_host(host, allow_remote=False)
    check_host(host, allow_remote=True)


def test_loopback_needs_no_permission():
    for host in ("127.0.0.1", "localhost", "::1"):
        check_host(host, allow_remote=False)


def test_a_taken_port_is_named():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(PocketiqaError, match=f"port {port}: .*choose another --host or --port"):
            listen("127.0.0.1", port)
    with pytest.raises(PocketiqaError, match="choose another"):
        listen("no.such.host.invalid", 1)


def test_the_command_answers_and_ends_when_told(tmp_path: Path):
    command = [sys.executable, "-m", "distill.cli", "serve", "--port", "0", "--model", "pocket-s"]
    with ExitStack() as stack:
        server = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True))
        stack.callback(server.kill)  # a test that fails must not wait for it
        assert server.stderr is not None
        line = server.stderr.readline()
        address = next(word for word in line.replace(";", " ").split() if word.startswith("http://"))
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{address}/health", timeout=30) as answer:
            assert b'"model":"pocket-s"' in answer.read()
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
    with (
        pytest.raises(OSError, match="refused"),
        socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1]))),
    ):
        pass


def test_a_remote_host_is_refused_by_the_command():
    command = [sys.executable, "-m", "distill.cli", "serve", "--host", "0.0.0.0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "--allow-remote" in done.stderr
