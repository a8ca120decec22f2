"""Which process this is: alone, or one of several started by ``accelerate launch`` or ``torchrun``."""

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import torch

from pseudo_labels.errors import PocketiqaError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of a GPU or of the machine did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)  # torch's message on the CPU


def release_memory() -> None:
    """Give back what torch keeps of a GPU's memory for later; call it when the error is no longer held."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def check_precision(name: str) -> None:
    """Refuse what is no key of ``PRECISIONS``.

    Raises:
        PocketiqaError: names the choices.
    """
    if name not in PRECISIONS:
        raise PocketiqaError(f"precision {name!r}: choose {', '.join(PRECISIONS)}")


def full_precision(device: str) -> AbstractContextManager[object]:
    """Switches autocast off on a type of device, where it has autocast at all."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch use so many threads, at least 1; as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers, which reports tensors and settings that it does not use, and restore its settings."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


_WORLD_VARIABLES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# Processes wait for each other only before and after the work, and a fast one may wait for hours.
_PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Launch:
    """This process among those of a run.

    Attributes:
        rank: 0 to ``world`` - 1.
        world: number of processes.
        device: for the model.
        wait_for_all: returns once every process has called it; a PocketiqaError if one of them is gone.
    """

    rank: int
    world: int
    device: torch.device
    wait_for_all: Callable[[], None]

    @property
    def is_main(self) -> bool:
        """Whether this process creates and finishes what all write together."""
        return self.rank == 0


def current_launch(device: str = "auto") -> Launch:
    """Find out how this process was started; alone, nothing is initialised and Accelerate is not even imported.

    Args:
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``, ...; of several processes, each takes
            its own GPU.

    Raises:
        PocketiqaError: the device does not exist.
    """
    chosen = _device(device)
    if max(int(os.environ.get(name) or 1) for name in _WORLD_VARIABLES) == 1:
        return Launch(0, 1, chosen, lambda: None)
    from accelerate import PartialState

    state = PartialState(cpu=chosen.type == "cpu")
    leave_group_at_exit()
    own = chosen if chosen.type == "cpu" or state.device is None else state.device
    return Launch(state.process_index, state.num_processes, own, _patient_barrier())


def lone_device(device: str, how: str) -> torch.device:
    """The device of a process that is no rank of a launcher, though Slurm or MPI may have started it.

    Args:
        device: see ``current_launch``.
        how: what it does instead of being a rank, for the message.

    Raises:
        PocketiqaError: the device does not exist, or this is a rank of ``torchrun`` or ``accelerate launch``.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) > 1 and "RANK" in os.environ:
        raise PocketiqaError(
            f"{how} needs no launcher: start each process by itself, without torchrun or accelerate launch"
        )
    return _device(device)


def leave_group_at_exit() -> None:
    """Have this process leave its group in good order when it ends.

    Threads of gloo that still run while Python is taken down abort the process ("terminate called without an active
    exception"), now and then, after all work is done: the launcher would call that a failure.
    """
    atexit.unregister(_leave_group)
    atexit.register(_leave_group)


def _leave_group() -> None:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_backend() == "gloo":
        distributed.destroy_process_group()


def _patient_barrier() -> Callable[[], None]:
    """A barrier that outlasts the usual limit of half an hour.

    It is made of TCP connections (gloo) on every machine, so that a process that dies does not leave the others
    waiting: they see the connection close, if the launcher has not ended them before.
    """
    group = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
    if not isinstance(group, torch.distributed.ProcessGroup):
        raise PocketiqaError("this process is not part of the run that the launcher started: start it with torchrun")

    def wait() -> None:
        try:
            torch.distributed.barrier(group=group)
        except RuntimeError as error:
            raise PocketiqaError(
                "another process of this run ended early: mend its error, then run the same command again to resume"
            ) from error

    return wait


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise PocketiqaError(f"device {name!r} cannot be used here: choose auto, cpu or an existing cuda:N") from error
    return device
