"""Claims: one holder at a time, dead ones are known, and those that only seem dead do no harm."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import cast

import fsspec
import pytest

from pseudo_labels import claims, remote
from pseudo_labels.claims import held
from pseudo_labels.errors import OutputConflictError
from pseudo_labels.remote import Address, location

CLAIM = cast(Address, location("memory://claims/.shard-00001.lock"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(claims, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(claims, "_SETTLED_S", 0.01)
    monkeypatch.setattr(claims, "RENEWED_EVERY_S", 0.05)
    monkeypatch.setattr(claims, "EXPIRES_S", 0.5)
    monkeypatch.setattr(claims, "_SEEN", {})
    monkeypatch.setattr(claims, "_DEAD", set())
    yield
    fsspec.filesystem("memory").store.clear()


def put(**changes: object) -> None:
    """A claim of another machine."""
    record = {"machine": "elsewhere", "pid": 1, "started": "5", "process": "other", "claim": "theirs", "renewed": 0}
    remote.write(CLAIM, json.dumps(record | changes).encode())


def test_a_claim_has_one_holder_and_is_given_back():
    with held(CLAIM, what="shard 1"):
        before = json.loads(CLAIM.read_bytes())
        for wait in (True, False):
            with (
                pytest.raises(OutputConflictError, match="another process is writing shard 1"),
                held(CLAIM, what="shard 1", wait=wait),
            ):
                pass
        time.sleep(0.2)
        after = json.loads(CLAIM.read_bytes())
    assert after["renewed"] > before["renewed"]
    assert after | {"renewed": 0} == before | {"renewed": 0}
    assert not CLAIM.exists()
    with held(CLAIM, what="shard 1"):
        pass
    assert threading.active_count() < 20


def test_it_is_given_back_after_an_error():
    with pytest.raises(KeyError), held(CLAIM, what="shard 1"):
        raise KeyError
    assert not CLAIM.exists()


def test_a_claim_of_another_machine_is_taken_over_once_it_has_run_out():
    put()
    start_s = time.monotonic()
    with held(CLAIM, what="shard 1"):
        assert 0.5 < time.monotonic() - start_s < 20
        assert json.loads(CLAIM.read_bytes())["process"] != "other"
    # The same process has died with another claim: that is known by now.
    put(claim="their second")
    start_s = time.monotonic()
    with held(CLAIM, what="shard 2", wait=False):
        assert time.monotonic() - start_s < 0.4


def test_a_claim_that_is_renewed_is_not_taken():
    put()
    over = threading.Event()

    def renew() -> None:
        number = 0
        while not over.wait(0.05):
            number += 1
            put(renewed=number)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(OutputConflictError), held(CLAIM, what="shard 1"):
            pass
    finally:
        over.set()
        thread.join()


def test_looks_that_do_not_wait_find_a_dead_one_in_time():
    put()
    give_up_s = time.monotonic() + 20
    refused = 0
    while time.monotonic() < give_up_s:
        try:
            with held(CLAIM, what="shard 1", wait=False):
                break
        except OutputConflictError:
            refused += 1
            time.sleep(0.02)
    else:
        pytest.fail("it was never taken over")
    assert refused > 3


def test_a_dead_process_of_this_machine_is_known_at_once():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    put(machine=claims._machine(), pid=ended.pid, started="1", process="dead")
    start_s = time.monotonic()
    with held(CLAIM, what="shard 1"):
        assert time.monotonic() - start_s < 0.4
    # The number of a process may be that of a later one, which began at another time.
    put(machine=claims._machine(), pid=os.getpid(), started="1", process="dead too")
    with held(CLAIM, what="shard 1", wait=False):
        pass


def test_a_process_that_dies_after_it_was_seen_is_known_at_once_too():
    holder = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    put(machine=claims._machine(), pid=holder.pid, started=claims._started(holder.pid), process="seen")
    with pytest.raises(OutputConflictError), held(CLAIM, what="shard 1", wait=False):
        pass
    holder.kill()
    holder.wait()
    with held(CLAIM, what="shard 1", wait=False):
        pass


def test_who_was_taken_over_neither_renews_nor_removes_the_claim_of_the_other():
    with held(CLAIM, what="shard 1"):
        put()
        time.sleep(0.2)
        assert json.loads(CLAIM.read_bytes()) == {
            "machine": "elsewhere", "pid": 1, "started": "5", "process": "other", "claim": "theirs", "renewed": 0
        }  # fmt: skip
    assert json.loads(CLAIM.read_bytes())["claim"] == "theirs"


def test_a_claim_that_is_not_ours_to_read_runs_out_too():
    remote.write(CLAIM, b"not json")
    with held(CLAIM, what="shard 1"):
        pass


def test_two_who_take_over_at_once_end_with_one_claim():
    put()
    holders: list[int] = []
    together = threading.Barrier(2)

    def take(number: int) -> None:
        together.wait()
        try:
            with held(CLAIM, what="shard 1"):
                holders.append(number)
                time.sleep(0.3)
        except OutputConflictError:
            pass

    threads = [threading.Thread(target=take, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert holders
    assert not CLAIM.exists()
