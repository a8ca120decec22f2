"""How memory that ran out makes itself known, and what helps."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this says that the memory of a GPU or of the machine did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)  # how torch says it on the CPU


def release_memory() -> None:
    """Give back what torch keeps of a GPU's memory for later; call it when the error is no longer held."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
