from collections import deque
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import start_processes

from teachers.qfm_iqm.memory import Entries, Memory, gathered, ring_slots


def entries(numbers: list[int]) -> Entries:
    """Images whose every value is their number."""
    column = torch.tensor(numbers, dtype=torch.float32)
    return Entries(column[:, None].expand(-1, 3), column[:, None, None].expand(-1, 2, 2), column)


def oldest_first(memory: Memory) -> list[float]:
    """Scores in order of age, from the ring's counter."""
    scores = memory.entries().score
    return torch.roll(scores, -(int(memory.written) % len(scores))).tolist() if len(scores) else []


@pytest.mark.parametrize("length", [1, 4, 7])
def test_it_holds_the_last_images_as_a_queue_does(length: int):
    memory, queue = Memory(length, 3, (2, 2)), deque(maxlen=length)
    number = 0
    for size in (2, 3, 0, 1, 9, 4):
        new = list(range(number, number + size))
        number += size
        memory.push(entries(new))
        queue.extend(new)
        held = memory.entries()
        assert sorted(held.score.tolist()) == sorted(queue)
        if len(queue) == length:
            assert oldest_first(memory) == list(queue)
        # All three buffers speak of the same image.
        assert torch.equal(held.semantics, held.score[:, None].expand(-1, 3))
        assert torch.equal(held.features, held.score[:, None, None].expand(-1, 2, 2))


def test_a_new_memory_is_empty_and_comes_back_from_its_state():
    memory = Memory(4, 3, (2, 2))
    assert len(memory.entries().score) == 0
    memory.push(entries([5, 6, 7, 8, 9]))
    other = Memory(4, 3, (2, 2))
    other.load_state_dict(memory.state_dict())
    other.push(entries([10]))
    assert oldest_first(other) == [7, 8, 9, 10]
    assert oldest_first(memory) == [6, 7, 8, 9]


def test_slots_go_round():
    slots, dropped = ring_slots(written=5, new=3, length=4)
    assert (slots.tolist(), dropped) == ([1, 2, 3], 0)
    slots, dropped = ring_slots(written=5, new=6, length=4)
    assert (slots.tolist(), dropped) == ([3, 0, 1, 2], 2)


def test_alone_a_process_gets_its_own_rows():
    rows = torch.rand(3, 2)
    assert gathered(rows) is rows


def _process(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    memory = Memory(4, 3, (2, 2))
    memory.push(entries([0, 1] if rank == 0 else [10, 11, 12]))
    torch.save(memory.state_dict(), Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_remember_the_same_even_with_batches_of_different_sizes(tmp_path: Path):
    # Forked, because a fresh start imports torch twice; the children only copy small tensors.
    start_processes(_process, (str(tmp_path),), nprocs=2, start_method="fork")
    states: list[dict[str, Tensor]] = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    memory = Memory(4, 3, (2, 2))
    memory.load_state_dict(states[0])
    assert oldest_first(memory) == [1, 10, 11, 12]
