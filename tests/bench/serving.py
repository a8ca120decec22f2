"""The server under load: what it can carry, and what it does under twice as much. Server and client divide the cores.

``python -m tests.bench serving`` sends 20,000 requests: some minutes. ``REQUESTS=2000`` sends fewer.
"""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from tests.bench.photographs import write_jpegs
from tests.helpers.imports import ROOT

_REQUESTS = int(os.environ.get("REQUESTS", "20000"))
_WARM_UP, _MEASURED = 100, 400
_OVERLOAD = 2.0


def main() -> None:
    """Print requests a second, 99th percentiles, statuses and memory."""
    with TemporaryDirectory() as folder:
        photo = write_jpegs(Path(folder), 1, 512, 512)[0].read_bytes()
    command = [sys.executable, "-m", "distill.cli", "serve", "--port", "0", "--model", "pocket-m"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            line = server.stderr.readline()
            address = re.search(r"http://\S+?:\d+", line)
            if address is None:
                sys.exit(f"the server did not start: {line}{server.stderr.read()}")
            asyncio.run(_measure(address[0], photo, server.pid))
        finally:
            server.terminate()


async def _measure(address: str, photo: bytes, pid: int) -> None:
    limits = httpx.Limits(max_connections=256)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as client:
        for _ in range(_WARM_UP):
            await client.post("/score", content=photo)
        before = _resident_mb(pid)
        started = time.perf_counter()
        alone = [await _one(client, photo) for _ in range(_MEASURED)]
        capacity = _MEASURED / (time.perf_counter() - started)
        print(f"one request after another: {capacity:.0f} a second, {_words(alone)}")
        answers = await _at_rate(client, photo, _OVERLOAD * capacity)
        print(f"{_OVERLOAD:g} times as many: {len(answers)} requests, {_words(answers)}")
        other = Counter(code for code, _ in answers if code not in (200, 503))
        print(f"answers that are neither 200 nor 503: {dict(other) or 0}")
        print(f"memory of the server: {before:.0f} MB before, {_resident_mb(pid):.0f} MB after")


async def _at_rate(client: httpx.AsyncClient, photo: bytes, rate: float) -> list[tuple[int, float]]:
    """Send at fixed times, whatever becomes of the earlier requests, as many clients would."""
    started, tasks = time.perf_counter(), list[asyncio.Task[tuple[int, float]]]()
    for number in range(_REQUESTS):
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(_one(client, photo)))
    return [await task for task in tasks]


async def _one(client: httpx.AsyncClient, photo: bytes) -> tuple[int, float]:
    started = time.perf_counter()
    answer = await client.post("/score", content=photo)
    if answer.status_code == 503:
        assert "retry-after" in answer.headers
    return answer.status_code, time.perf_counter() - started


def _words(answers: list[tuple[int, float]]) -> str:
    scored = np.array([seconds for code, seconds in answers if code == 200])
    refused = np.array([seconds for code, seconds in answers if code == 503])
    median, p99 = 1000 * np.quantile(scored, [0.5, 0.99])
    words = f"{len(scored)} scored (median {median:.0f} ms, p99 {p99:.0f} ms)"
    if len(refused):
        words += f", {len(refused)} told to come again (p99 {1000 * np.quantile(refused, 0.99):.0f} ms)"
    return words


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
