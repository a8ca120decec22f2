"""Tensors of all processes as one batch, with gradients, on any backend."""

from typing import Any

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """Number of processes that train together, 1 outside a launcher."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce (sum) whose gradient is the all-reduced gradient.

    Every process's loss depends on the sum, so the gradient of the sum of those losses is the sum of their gradients.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        gradient = grad_outputs[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient)
        return gradient


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Elementwise sum over all processes; differentiable."""
    return tensor if world_size() == 1 else _SumOverProcesses.apply(tensor)  # type: ignore[return-value]


def gather_rows(tensor: Tensor) -> Tensor:
    """Concatenate the rows of all processes in order of rank; equal shapes required.

    Only this process's rows carry a gradient. A loss of the gathered rows therefore has, on each process, the part of
    its gradient that flows through that process; their sum is the whole gradient. DistributedDataParallel averages
    instead of summing, so the loss must be multiplied by ``world_size()`` before the backward pass.
    """
    if world_size() == 1:
        return tensor
    rows = [torch.empty_like(tensor) for _ in range(world_size())]
    distributed.all_gather(rows, tensor.detach().contiguous())
    rows[distributed.get_rank()] = tensor
    return torch.cat(rows)


def sum_of_ints(value: int, device: torch.device) -> int:
    """The sum of one small number over all processes; all must ask together."""
    if world_size() == 1:
        return value
    total = torch.tensor([value], device=device)
    distributed.all_reduce(total)
    return int(total.item())
