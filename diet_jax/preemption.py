"""When work is saved: at safe points only, told to stop by a scheduler or as time goes by."""

import os
import signal
import time
from collections.abc import Callable

from diet_jax import sharding

STATUS = 143  # exit status of a job that saved and stopped: 128 + SIGTERM


class Preempted(Exception):
    """The job was told to stop and has saved what it had: the same command goes on from there."""


def watch() -> Callable[[], bool]:
    """From now on SIGTERM, SIGUSR1 and Ctrl-C only leave a note; f() says at a safe point whether
    to stop.

    A second signal of the kind ends the process at once. Of several processes one notice stops all
    of them at the same safe point, so all have to ask at the same points.
    """
    received = []

    def note(number, _frame):
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        if number == signal.SIGINT:
            os.write(2, b"\nStopping once it is saved; a second Ctrl-C does not wait.\n")

    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, note)
    return lambda: sharding.any_process(bool(received))


def every(minutes: float) -> Callable[[], bool]:
    """f() says at a safe point whether so many minutes have passed since it last said so; 0: never.

    Of several processes the clock of the first one decides for all.
    """
    last = time.monotonic()

    def due() -> bool:
        nonlocal last
        over = time.monotonic() - last >= 60 * minutes
        if not minutes or not sharding.any_process(sharding.is_first() and over):
            return False
        last = time.monotonic()
        return True

    return due
