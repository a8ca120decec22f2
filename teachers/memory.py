"""How memory that ran out makes itself known."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this says that the memory of a GPU or of the machine did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)  # how torch says it on the CPU
