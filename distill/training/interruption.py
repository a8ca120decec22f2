"""SIGTERM and Ctrl-C as a wish that a loop can ask for, instead of an end in the middle of a step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Whether somebody asked the program to end.

    Attributes:
        wish: name of the first signal that came; empty before.
    """

    def __init__(self) -> None:
        self.wish = ""


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Catch the first SIGTERM or SIGINT; a second one acts as it did before.

    Outside the main thread, where Python sets no handlers, nothing is caught.
    """
    asked = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            # None: set by a program in C; it cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(number: int, _: FrameType | None) -> None:
        asked.wish = signal.Signals(number).name
        restore()

    for number in _SIGNALS:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        restore()
