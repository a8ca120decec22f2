"""Work of a Ray cluster: one that is named, or a local one that is started for the work.

**Shards of a store.** Actors keep the teacher loaded; a shard is a task, the same as of one of
``sharing.own_shards(world=shards)``. Ray only says who does what: pools are read from, and stores are written to, a
file system that all nodes see under one path, and each shard is committed by the worker that labelled it. A worker that
is lost, or taken for lost, costs its shard in work, which goes elsewhere; should it write late, the shard is there with
the same bytes and stays.

**A function of many items**, with results in order (``RayCluster.ready``): a task each, which Ray itself runs again
where a worker or its node is lost.
"""

import importlib
import logging
import math
import os
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from pseudo_labels import outputs
from pseudo_labels.errors import PocketiqaError, install_command
from pseudo_labels.parallel import InOrder, Progress, usable_cores
from pseudo_labels.store import ShardStore
from teachers.batched import Warn
from teachers.launch import Launch, lone_device
from teachers.sharing import Held, Order, own_shards, store_of_all_ranks

DEFAULT_RETRIES = 3
_ADDRESS = "RAY_ADDRESS"  # Ray's own variable, which its job submission sets
_LOCAL = "local"
# Nothing but names and numbers of shards passes through Ray's store of objects; this is about the least it takes.
_OBJECT_STORE_BYTES = 100 << 20
# Between two looks at the nodes; tasks that end are heard of at once.
_LOOK_S = 1.0
_SAY_WAITING_S = 20.0
# A worker on which so many tasks in a row have failed gets no more: the fault is not in the shards.
_FAILURES_IN_A_ROW = 3
# Items of ``in_order`` in work or waiting, for each core.
_AHEAD = 4
_CORE = {"CPU": 1.0}
# Longest wait for tasks that were cancelled while they ran.
_CANCEL_S = 60.0
# Longest wait for an answer of the head of a cluster: Ray itself would try for a quarter of an hour.
_CONNECT_S = 5.0
# Of this worker process: the function that it calls, and the reference that it was sent by.
_APPLIED: dict[str, Any] = {}


@dataclass(frozen=True)
class RayCluster:
    """All shards, by workers of a Ray cluster; this process hands them out and finishes the store.

    Attributes:
        address: of the cluster, such as ``10.0.0.1:6379`` or ``auto``; None takes the variable
            ``RAY_ADDRESS``, and where there is none, starts a local cluster for the work.
        gpus_per_task: GPUs of one worker, or a fraction of one; None is 1 where the cluster has any and the device is
            not ``cpu``, else 0.
        retries: how often a shard is tried again after a failure.
    """

    address: str | None = None
    gpus_per_task: float | None = None
    retries: int = DEFAULT_RETRIES

    def __post_init__(self) -> None:
        gpus = self.gpus_per_task
        if gpus is not None and not (gpus >= 0 and (gpus < 1 or gpus % 1 == 0)):
            raise PocketiqaError(f"{gpus} GPUs a task: choose a fraction below 1, or a whole number")
        if self.retries < 0:
            raise PocketiqaError(f"{self.retries} retries: at least 0 are needed")

    def label(self, order: Order[Any], *, progress: Progress | None, warn: Warn) -> None:
        """Label all shards of a store and finish it.

        Raises:
            OutputConflictError: another process works in the folder, or it holds something else.
            PocketiqaError: Ray is not installed, the cluster cannot be reached or has no room for a task, shards failed
                too often, or too many images.
        """
        _ray()
        lone_device("cpu", "--engine ray")
        # Here only for what determines the store; the labels are made elsewhere.
        work = order.work(warn)
        outputs.refuse_shared(work.out)
        launch = Launch(0, 1, torch.device("cpu"), lambda: None)
        with store_of_all_ranks(work, launch, overwrite=order.overwrite) as store, self.connected() as (ray, grows):
            gpus = self._gpus(ray, order.device)
            room = {"CPU": float(order.threads), **({"GPU": gpus} if gpus else {})}
            if not grows and not _capacity(ray, room):
                raise PocketiqaError(f"a task needs {_amounts(room)}, but this machine has less: ask for less")
            worker_order = replace(_absolute(order), overwrite=False)
            _Dispatch(ray, store, worker_order, room, self.retries, progress=progress, warn=warn).run()

    @contextmanager
    def ready(self, warn: Warn) -> Iterator[InOrder]:
        """Connect, and try that a worker can work.

        Args:
            warn: told when no worker becomes free.

        Yields:
            ``in_order`` on the cluster, a core for each item. Closing its generator, or an error, cancels what has not
            begun and waits for what has. An item whose worker is lost goes elsewhere: the function must do no harm if
            it is called twice.

        Raises:
            PocketiqaError: as ``connected``, or no worker can begin. While it is used: the workers of an item were lost
                too often; and whatever the function raises.
        """
        with self.connected() as (ray, grows):
            if not grows and not _capacity(ray, _CORE):
                raise PocketiqaError(f"a task needs {_amounts(_CORE)}, but this machine has less")
            # What the function raises would be raised again elsewhere; only lost workers are tried again.
            task = ray.remote(_apply).options(num_cpus=1, max_retries=self.retries, retry_exceptions=False)
            work = _Work(ray, task, self.retries, warn)
            list(work.in_order(_nothing, [None]))
            yield work.in_order

    def _gpus(self, ray: Any, device: str) -> float:
        if self.gpus_per_task is not None:
            return self.gpus_per_task
        return float(device != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1)

    @contextmanager
    def connected(self) -> Iterator[tuple[Any, bool]]:
        """Be connected to the cluster; a connection that this process had before is used and kept.

        Yields:
            The module ``ray``, and whether nodes may still join the cluster.

        Raises:
            PocketiqaError: Ray is not installed, or there is no cluster at the address.
        """
        ray = _ray()
        if ray.is_initialized():
            yield ray, True
            return
        address = self.address or os.environ.get(_ADDRESS) or _LOCAL
        _check_answers(address)
        # Only what a cluster is started with; of one that runs, Ray refuses to be told.
        started: dict[str, Any] = {}
        if address == _LOCAL:
            started = {"num_cpus": usable_cores(), "object_store_memory": _OBJECT_STORE_BYTES}
            started["include_dashboard"] = False
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **started)
        except Exception as error:  # Ray has no kind of its own for this, and may raise a bare Exception
            ray.shutdown()
            if address == _LOCAL:
                raise PocketiqaError(
                    f"no local Ray cluster could be started ({_first_line(error)}): try again when the machine "
                    "is less busy, or share the work with --claim, which needs no cluster"
                ) from error
            raise _no_cluster(address, error) from error
        try:
            yield ray, address != _LOCAL
        finally:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Refuse the address of a head that nobody answers at.

    Raises:
        PocketiqaError: there is no connection.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: BaseException) -> PocketiqaError:
    return PocketiqaError(
        f"no Ray cluster can be used at {address!r} ({_first_line(error)}): give the address of its head, such as "
        f"10.0.0.1:6379, or leave --ray-address and {_ADDRESS} away for a local one"
    )


def _ray() -> Any:
    # Read when Ray is imported: nothing is reported to its makers, and nothing is said of devices we do not ask for.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Failures are told by us, once.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise PocketiqaError(f"ray is not installed: {install_command('ray')}") from error


def _absolute(order: Any) -> Any:
    """The same order with absolute paths: workers have working folders of their own."""
    values = {field.name: getattr(order, field.name) for field in fields(order)}
    return replace(order, **{name: path.absolute() for name, path in values.items() if isinstance(path, Path)})


@dataclass(frozen=True)
class _Work:
    """A function of many items on a cluster that is connected; see ``RayCluster.ready``.

    Attributes:
        ray: the module.
        task: ``_apply``, as Ray calls it.
        retries: how often an item whose worker was lost is tried again.
        warn: told when no worker becomes free.
    """

    ray: Any
    task: Any
    retries: int
    warn: Warn

    def in_order(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Generator[Any, None, None]:
        """As ``parallel.in_order``."""
        sent = self.ray.put(function)
        waiting = deque[Any]()
        try:
            for item in items:
                # Asked each time, because nodes join and leave.
                while len(waiting) >= _AHEAD * max(1, _capacity(self.ray, _CORE)):
                    yield self._result(waiting.popleft())
                # In a list, which Ray hands over as it is: the function itself would be read for each item.
                waiting.append(self.task.remote([sent], item, list(sys.path)))
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            # Ray would connect again to cancel what has ended with the connection.
            if waiting and self.ray.is_initialized():
                for left in waiting:
                    self.ray.cancel(left)
                self.ray.wait(list(waiting), num_returns=len(waiting), timeout=_CANCEL_S)

    def _result(self, task: Any) -> Any:
        errors = self.ray.exceptions
        try:
            while not self.ray.wait([task], timeout=_SAY_WAITING_S)[0]:
                if not _capacity(self.ray, _CORE):
                    self.warn(f"waiting for room in the cluster: a task needs {_amounts(_CORE)}")
            return self.ray.get(task)
        except errors.RayTaskError as error:
            if not isinstance(error.cause, errors.RayError):
                raise error.cause from error
            reason = _first_line(error.cause)
        except errors.RayError as error:
            reason = _first_line(error)
            lost = errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError, errors.ObjectLostError
            if isinstance(error, lost):
                raise PocketiqaError(
                    f"the workers of a task were lost {self.retries + 1} times ({reason}): what was made so far is "
                    "kept, run the same command again"
                ) from error
        raise PocketiqaError(f"a worker of Ray cannot do its task ({reason}): is pocketiqa installed on every node?")


def _apply(sent: list[Any], item: Any, modules: list[str]) -> Any:
    """Call the function that was sent with an item, in a worker of Ray."""
    if _APPLIED.get("sent") != sent:
        sys.path += [path for path in modules if path not in sys.path]
        _APPLIED.update(sent=sent, function=_ray().get(sent[0]))
    return _APPLIED["function"](item)


def _nothing(_item: Any) -> None:
    """Shows that a worker has this package."""


class Worker:
    """What an actor is: the work of an order, kept from shard to shard.

    Args:
        order: what is labelled, with absolute paths.
        device: of the teacher.
        folder: working folder of the command, for other relative paths.
        modules: folders in which its modules are found, for teachers of the user's own.
    """

    def __init__(self, order: Any, device: str, folder: str, modules: list[str]):
        self._order, self._device, self._folder, self._modules = order, device, folder, modules
        self._said: list[str] = []

    def where(self) -> str:
        """Id of the node."""
        return str(_ray().get_runtime_context().get_node_id())

    def begin(self) -> None:
        """Load the teacher.

        Raises:
            PocketiqaError: it cannot be loaded here, or is another one than the store was begun with.
        """
        sys.path += [path for path in self._modules if path not in sys.path]
        if os.path.isdir(self._folder):
            os.chdir(self._folder)
        work = self._order.work(self._said.append)
        # Read-only, as the folder has a manifest: refuses if this node has other weights, or another version.
        outputs.claim(work.out, work.kind.kind, dict(work.spec))
        work.to(lone_device(self._device, "a worker of Ray"))
        self._work, self._store = work, work.kind.open(work.out)
        self._said.clear()  # the command has said it

    def label(self, index: int) -> list[str]:
        """Label a shard, unless it is there and good; what is to be said of it."""
        store = self._store
        queue = own_shards(
            store, rank=index, world=store.shard_count, retry=self._work.failed.of_shard, warn=self._said.append,
            held=Held.IGNORE,
        )  # fmt: skip
        self._work.label(store, queue)
        said = list(self._said)
        self._said.clear()
        return said


class _First(Enum):
    """What an actor does before its first shard."""

    WHERE = "where"
    BEGIN = "begin"


@dataclass(eq=False)
class _Actor:
    """An actor as the dispatcher sees it.

    Attributes:
        handle: Ray's.
        node: id of its node; empty until it has begun.
        failures: tasks that failed on it in a row.
        usable: whether it gets tasks.
    """

    handle: Any
    node: str = ""
    failures: int = 0
    usable: bool = False


class _Dispatch:
    """Hands shards to actors until all are done or given up.

    Args:
        ray: the module.
        store: the store.
        order: for the actors.
        room: resources of an actor.
        retries: how often a shard is tried again.
        progress: told rows done and in all.
        warn: told what is lost and tried again.
    """

    def __init__(
        self, ray: Any, store: ShardStore, order: Any, room: dict[str, float], retries: int, *,
        progress: Progress | None, warn: Warn,
    ):  # fmt: skip
        self._ray, self._store, self._order, self._room, self._retries = ray, store, order, room, retries
        self._progress, self._warn = progress, warn
        self._worker = ray.remote(Worker)
        self._waiting = deque(range(store.shard_count))
        # Of each task that runs: its actor, and a shard or what an actor does before its first one.
        self._running: dict[Any, tuple[_Actor, int | _First]] = {}
        self._actors: list[_Actor] = []
        self._tries = Counter[int]()
        self._lost_early = 0
        self._failed_on: dict[int, str] = {}
        self._given_up: dict[int, str] = {}
        self._last_reason = ""
        self._nodes: dict[str, str] = {}
        self._gone: dict[str, str] = {}
        self._said: set[str] = set()
        self._rows_done, self._looked_s, self._idle_since_s = 0, -math.inf, time.monotonic()
        self._rows_in_all = sum(len(store.shard_rows(index)) for index in range(store.shard_count))

    def run(self) -> None:
        """Label every shard.

        Raises:
            PocketiqaError: shards failed too often, or no worker can work.
        """
        self._report(0)
        try:
            while self._waiting or any(isinstance(what, int) for _, what in self._running.values()):
                self._look()
                self._assign()
                if not self._running:
                    raise PocketiqaError(
                        f"no worker of the cluster can label ({self._last_reason}); what was committed is kept: mend "
                        "the cause and run the same command again"
                    )
                done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_LOOK_S)
                for task in done:
                    self._ended(task)
        finally:
            for actor in self._actors:
                self._ray.kill(actor.handle)
        if self._given_up:
            index, reason = next(iter(self._given_up.items()))
            raise PocketiqaError(
                f"{len(self._given_up)} of {self._store.shard_count} shards failed {self._retries + 1} times each "
                f"(shard {index}: {reason}); the others are kept: mend the cause and run the same command again"
            )

    def _look(self) -> None:
        """Now and then: see which nodes there are, and start actors where there is room."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        alive = {
            node["NodeID"]: f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})"
            for node in self._ray.nodes()
            if node["Alive"]
        }
        for node in self._nodes.keys() - alive.keys():
            self._gone[node] = self._nodes.pop(node)
            self._warn(f"node {self._gone[node]} is gone; its shards go elsewhere")
        self._nodes |= alive
        # One at least, though there may be no room yet: clusters that grow do so when asked.
        wanted = min(len(self._waiting), max(1, _capacity(self._ray, self._room)) - len(self._actors))
        for _ in range(wanted):
            self._start()
        if any(actor.node for actor in self._actors):
            self._idle_since_s = now_s
        elif now_s - self._idle_since_s > _SAY_WAITING_S:
            self._say(f"waiting for room in the cluster: a task needs {_amounts(self._room)}")

    def _start(self) -> None:
        room, device = self._room, self._order.device
        gpus = room.get("GPU", 0)
        # Restarted by us and not by Ray: on another node, and with the shard that was lost.
        remote = self._worker.options(num_cpus=room["CPU"], num_gpus=gpus, max_restarts=0)
        handle = remote.remote(self._order, device if gpus else "cpu", os.getcwd(), list(sys.path))
        actor = _Actor(handle)
        self._actors.append(actor)
        self._running[handle.where.remote()] = actor, _First.WHERE

    def _assign(self) -> None:
        busy = {id(actor) for actor, _ in self._running.values()}
        idle = [actor for actor in self._actors if actor.usable and id(actor) not in busy]
        for actor in idle:
            index = self._shard_for(actor)
            if index is not None:
                self._waiting.remove(index)
                self._running[actor.handle.label.remote(index)] = actor, index

    def _shard_for(self, actor: _Actor) -> int | None:
        """The next shard that did not fail on the node of an actor; one that did, if there is no other node."""
        elsewhere = any(other.usable and other.node != actor.node for other in self._actors)
        fresh = (index for index in self._waiting if self._failed_on.get(index) != actor.node)
        return next(fresh, None if elsewhere or not self._waiting else self._waiting[0])

    def _ended(self, task: Any) -> None:
        actor, what = self._running.pop(task)
        errors = self._ray.exceptions
        try:
            result = self._ray.get(task)
        except errors.RayTaskError as error:
            self._failed(actor, what, _first_line(error.cause))
        except errors.RayError as error:
            self._lost(actor, what, _first_line(error))
        else:
            self._worked(actor, what, result)

    def _worked(self, actor: _Actor, what: int | _First, result: Any) -> None:
        if what is _First.WHERE:
            actor.node = result
            self._running[actor.handle.begin.remote()] = actor, _First.BEGIN
            return
        actor.failures, actor.usable = 0, True
        if isinstance(what, int):
            for text in result:
                self._say(text)
            self._report(len(self._store.shard_rows(what)))

    def _failed(self, actor: _Actor, what: int | _First, reason: str) -> None:
        """A task ended with an error; its worker goes on, unless it is one that fails always."""
        actor.failures += 1
        if not isinstance(what, int) or actor.failures >= _FAILURES_IN_A_ROW:
            # Not ended: it keeps its place, where the next one would fail alike.
            actor.usable = False
            self._warn(f"a worker on node {self._name(actor.node)} gets no more shards: {reason}")
        self._again(actor, what, reason)

    def _lost(self, actor: _Actor, what: int | _First, reason: str) -> None:
        """A worker died, or its node did, or cannot be reached."""
        self._actors.remove(actor)
        # It may only have been out of reach; what it still commits does no harm, but it gets no more.
        self._ray.kill(actor.handle)
        self._looked_s = -math.inf
        reason = f"its worker on node {self._name(actor.node)} was lost ({reason})"
        if not isinstance(what, int):
            self._lost_early += 1
            if self._lost_early > self._retries and not any(one.usable for one in self._actors):
                raise PocketiqaError(
                    f"{self._lost_early} workers were lost while they loaded the teacher, the last one as {reason}: is "
                    "there enough memory, and is pocketiqa installed on every node?"
                )
        self._again(actor, what, reason)

    def _again(self, actor: _Actor, what: int | _First, reason: str) -> None:
        self._last_reason = reason
        if not isinstance(what, int):
            return
        self._tries[what] += 1
        self._failed_on[what] = actor.node
        if self._tries[what] > self._retries:
            self._given_up[what] = reason
            self._warn(f"shard {what} is given up: {reason}")
        else:
            self._waiting.append(what)
            self._warn(f"shard {what} is labelled again ({self._tries[what]} of {self._retries}): {reason}")

    def _name(self, node: str) -> str:
        return self._nodes.get(node) or self._gone.get(node) or "that is not known"

    def _say(self, text: str) -> None:
        """Once: each worker says the same of a pool or a teacher."""
        if text not in self._said:
            self._said.add(text)
            self._warn(text)

    def _report(self, rows: int) -> None:
        self._rows_done += rows
        if self._progress:
            self._progress(self._rows_done, self._rows_in_all)


def _capacity(ray: Any, room: dict[str, float]) -> int:
    """How many actors the living nodes have room for."""
    has = ray.cluster_resources()
    # A step of Ray's own rounding: ten tasks of a tenth of a GPU fit on one.
    return min(int(has.get(name, 0) / amount + 1e-4) for name, amount in room.items())


def _amounts(room: dict[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in room.items())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
