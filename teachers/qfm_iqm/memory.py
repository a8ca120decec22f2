"""What the last images looked like and how good they were: a ring of fixed length."""

from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Entries:
    """Images as they are remembered.

    Attributes:
        semantics: [L, C], what they show.
        features: [L, ...], what the decoder sees of them.
        score: [L].
    """

    semantics: Tensor
    features: Tensor
    score: Tensor


class Memory(nn.Module):
    """The last ``length`` images; its buffers are training state, for a checkpoint.

    Args:
        length: at least 1.
        semantics: channels.
        features: shape of one image's.
    """

    semantics: Tensor
    features: Tensor
    score: Tensor
    written: Tensor

    def __init__(self, length: int, semantics: int, features: tuple[int, ...]):
        super().__init__()
        self.register_buffer("semantics", torch.zeros(length, semantics))
        self.register_buffer("features", torch.zeros(length, *features))
        self.register_buffer("score", torch.zeros(length))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))

    def entries(self) -> Entries:
        """Those that have been written, at most ``length``, in the order of the buffers."""
        filled = min(int(self.written), len(self.score))
        return Entries(self.semantics[:filled], self.features[:filled], self.score[:filled])

    @torch.no_grad()
    def push(self, new: Entries) -> None:
        """Remember images, each over the oldest one; a process gets those of all others too, in order of rank."""
        parts = (gathered(new.semantics), gathered(new.features), gathered(new.score))
        slots, first = ring_slots(int(self.written), len(parts[2]), len(self.score))
        for buffer, part in zip((self.semantics, self.features, self.score), parts, strict=True):
            buffer[slots.to(buffer.device)] = part[first:].to(buffer.dtype)
        self.written += len(parts[2])


def ring_slots(written: int, new: int, length: int) -> tuple[Tensor, int]:
    """Where the next ``new`` entries of a ring of ``length`` go, after ``written`` before them.

    Returns:
        Slots, long, one for each entry that is kept; and the number of entries at the front that are not, because
        more than ``length`` came at once.
    """
    dropped = max(new - length, 0)
    return (written + torch.arange(dropped, new)) % length, dropped


def gathered(rows: Tensor) -> Tensor:
    """Rows of all processes, in order of rank, which may bring different numbers of them; alone, the same rows."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, count)
    most = max(int(one) for one in counts)
    # Collectives exchange equal shapes only.
    padded = torch.cat((rows, rows.new_zeros(most - len(rows), *rows.shape[1:])))
    everyone = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(everyone, padded)
    return torch.cat([part[: int(one)] for part, one in zip(everyone, counts, strict=True)])
