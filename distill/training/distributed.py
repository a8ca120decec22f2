"""Tensors of all processes as one batch, with gradients, on any backend."""

from typing import Any, cast

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, distributed, nn


def world_size() -> int:
    """Number of processes that train together, 1 outside a launcher."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce (sum) whose gradient is the all-reduced gradient.

    Every process's loss depends on the sum, so the gradient of the sum of those losses is the sum of their gradients.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        # all_reduce works in place, and takes contiguous tensors only.
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
    # What comes through the network has no gradient; the own rows are put back with theirs.
    rows[distributed.get_rank()] = tensor
    return torch.cat(rows)


def sum_of_ints(value: int, device: torch.device) -> int:
    """The sum of one small number over all processes; all must ask together."""
    if world_size() == 1:
        return value
    total = torch.tensor([value], device=device)
    distributed.all_reduce(total)
    return int(total.item())


class SyncNorm(nn.BatchNorm2d):
    """A BatchNorm2d (or timm's BatchNormAct2d, with its drop and activation) with statistics of all processes.

    It has the parameters and buffers of the module it replaces and has the same names in the state dict.
    """

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        # The same objects, not copies: their values and their names in the state dict stay.
        for name, parameter in norm.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        for name, child in norm.named_children():
            self.add_module(name, child)
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape, normalised over B, H, W of all processes in training, else by the buffers."""
        output = self._normalise(input) if self.training else super().forward(input)
        for child in self.children():  # drop and activation, in timm's order
            output = child(output)
        return output

    def _normalise(self, rows: Tensor) -> Tensor:
        # Half-precision sums over a batch lose too much; like torch's own, the statistics are float32 at least.
        values = rows if rows.dtype == torch.float64 else rows.float()
        # Sums and count in one message. float32 counts exactly up to 2^24 positions.
        sums = torch.cat([values.sum((0, 2, 3)), values.new_tensor([values.numel() // values.shape[1]])])
        sums = sum_over_processes(sums)
        count = sums[-1].detach()
        mean = (sums[:-1] / count)[:, None, None]
        # A second pass over centred values: the difference of two large sums would cancel.
        centred = values - mean
        variance = sum_over_processes(centred.square().sum((0, 2, 3))) / count
        self._track(mean.detach().flatten(), variance.detach(), count)
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        output = centred * scale[:, None, None]
        if self.affine:
            output = output + self.bias[:, None, None]
        return output.to(rows.dtype)

    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if not self.track_running_stats:
            return
        batches = cast(Tensor, self.num_batches_tracked).add_(1)
        fraction = self.momentum if self.momentum is not None else 1.0 / float(batches)
        # As torch does: running statistics take the unbiased variance, normalisation the biased one.
        unbiased = variance * (count / (count - 1).clamp_min(1))
        cast(Tensor, self.running_mean).lerp_(mean, fraction)
        cast(Tensor, self.running_var).lerp_(unbiased, fraction)


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, SyncNorm(child))
        else:
            _replace(child)


def synchronise(model: nn.Module, device: torch.device) -> nn.Module:
    """Make every BatchNorm2d of ``model`` use the statistics of all processes; the state dict keeps its names.

    On CUDA that is torch's fused SyncBatchNorm, through timm's converter, which knows BatchNormAct2d.
    """
    # torch's SyncBatchNorm needs a GPU; SyncNorm does the same on the CPU.
    if device.type == "cuda":
        return convert_sync_batchnorm(model)
    _replace(model)
    return model


def freeze(model: nn.Module) -> None:
    """Keep every batch normalisation at its running statistics, also in training; call after ``model.train()``.

    Its scale and shift stay trainable. Useful when a batch is too small for statistics of its own.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
            module.eval()
