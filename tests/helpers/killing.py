"""Kill a piece of work at random moments and run it again until it is done.

The work runs in children forked from a fresh, single-threaded Python that has imported everything already, so that a
life costs the work itself and not the import of torch. The moments follow from a seed and from two measured times.
"""

import contextlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

_ROOT = Path(__file__).parents[2]
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# The fraction of the work that all killed lives together would do if none of it were lost: they must not finish it.
_PROGRESS_BY_KILLED = 0.5


def kill_and_resume(
    target: Callable[..., Any] | str,
    args: Sequence[Any],
    *,
    unbroken_args: Sequence[Any],
    kills: int = 30,
    seed: int = 0,
    preload: Sequence[str] = (),
    limit_s: float = 300.0,
    after_kill: Callable[..., Any] | str | None = None,
) -> int:
    """Run ``target(*unbroken_args)`` in peace, then ``target(*args)`` with ``kills`` SIGKILLs and a last life in peace.

    Each life is ended at a moment drawn evenly from its start to a little beyond what a life can commit, so that both
    the start-up (finding out what is done) and the work are hit. Should the work be done before all kills are spent,
    the rest hits lives that only find out that all is done.

    Args:
        target: function of a module that can be imported from the repository root, or ``module:function``. Each life
            calls it in a process (and session) of its own; it must resume what an earlier life left.
        args: JSON values; name the output folder, as text.
        unbroken_args: the same for another output folder, to compare with.
        kills: how many lives are to be killed.
        seed: of the moments.
        preload: modules to import before forking, besides the target's.
        limit_s: for the whole; exceeded, everything is killed and an error raised.
        after_kill: called with ``args`` in a process of its own after each killed life; what it raises is a failure.

    Returns:
        How many lives were killed before their end.

    Raises:
        RuntimeError: a life failed by itself; its traceback is in the message.
    """
    name = _name(target)
    order = {"target": name, "args": list(args), "unbroken": list(unbroken_args)}
    order |= {"kills": kills, "seed": seed, "preload": list(preload)}
    order |= {"after_kill": after_kill and _name(after_kill)}
    environment = os.environ | dict.fromkeys(_ONE_THREAD, "1")
    command = [sys.executable, "-m", "tests.helpers.killing", json.dumps(order)]
    nursery = subprocess.Popen(
        command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        out, err = nursery.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        nursery.send_signal(signal.SIGTERM)
        out, err = nursery.communicate()
        raise RuntimeError(f"{name} was not done within {limit_s} s:\n{err}") from None
    if nursery.returncode != 0:
        raise RuntimeError(f"{name} failed by itself:\n{err}")
    return int(json.loads(out.splitlines()[-1])["hits"])


def _name(function: Callable[..., Any] | str) -> str:
    return function if isinstance(function, str) else f"{function.__module__}:{function.__qualname__}"


def _resolve(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _born(target: Callable[..., Any], args: Sequence[Any]) -> NoReturn:
    """The whole of a child: it never returns into the nursery's code."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(2, 1)  # the nursery's standard output carries only the result
        target(*args)
        status = 0
    except BaseException:  # noqa: BLE001, RUF100 - whatever it was, the nursery must hear of it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


class _Nursery:
    """Forks one life at a time."""

    def __init__(self, target: Callable[..., Any]) -> None:
        self._target = target
        self._child = 0
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: object) -> NoReturn:
        self._kill()
        sys.exit(1)

    def _kill(self) -> None:
        """End the child and everything it started (it leads a session of its own)."""
        if not self._child:
            return
        for kill in (os.killpg, os.kill):  # right after the fork there is no group yet
            with contextlib.suppress(ProcessLookupError):
                kill(self._child, signal.SIGKILL)

    def live(self, args: Sequence[Any], kill_after_s: float | None, target: Callable[..., Any] | None = None) -> bool:
        """One life; True if it was killed, False if it came to its end."""
        end = None if kill_after_s is None else time.monotonic() + kill_after_s
        self._child = os.fork()
        if self._child == 0:
            _born(target or self._target, args)
        while end is None or time.monotonic() < end:
            pid, status = os.waitpid(self._child, 0 if end is None else os.WNOHANG)
            if pid:
                return self._ended(status)
            time.sleep(0.0005)
        self._kill()
        _, status = os.waitpid(self._child, 0)
        return self._ended(status)

    def _ended(self, status: int) -> bool:
        self._child = 0
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGKILL:
            return True
        if code != 0:
            sys.exit(1)  # the child's traceback is on the standard error that we share
        return False

    def timed(self, args: Sequence[Any]) -> float:
        """Seconds of a life in peace."""
        start = time.monotonic()
        if self.live(args, None):
            sys.exit(1)
        return time.monotonic() - start


def _horizon(whole_s: float, idle_s: float, kills: int) -> float:
    """Latest moment of a kill, such that ``kills`` lives do a known fraction of the work.

    With moments even on (0, idle + w) a life works w^2 / (2 (idle + w)) on average; solve for w.
    """
    each = _PROGRESS_BY_KILLED * max(whole_s - idle_s, 0.01) / kills
    return idle_s + each + (each * each + 2 * each * idle_s) ** 0.5


def _run(order: dict[str, Any]) -> int:
    for module in order["preload"]:
        importlib.import_module(module)
    nursery = _Nursery(_resolve(order["target"]))
    whole_s = nursery.timed(order["unbroken"])
    idle_s = nursery.timed(order["unbroken"])  # all is done: this is what finding out costs
    horizon_s = _horizon(whole_s, idle_s, order["kills"])
    inspect = _resolve(order["after_kill"]) if order["after_kill"] else None
    moments = random.Random(order["seed"])
    hits = 0
    for _ in range(5 * order["kills"]):
        start = time.monotonic()
        if nursery.live(order["args"], moments.uniform(0.0, horizon_s)):
            hits += 1
            if inspect is not None:
                nursery.live(order["args"], None, inspect)
        else:
            # The machine has become faster since the times were taken, or all is done: kill earlier from now on.
            horizon_s = min(horizon_s, time.monotonic() - start)
        if hits == order["kills"]:
            break
    nursery.timed(order["args"])
    return hits


if __name__ == "__main__":
    print(json.dumps({"hits": _run(json.loads(sys.argv[1]))}))
