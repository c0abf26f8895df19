"""A scheduler's notice to stop, heard at safe points only, so that work is saved first."""

import signal
from collections.abc import Callable

from diet_jax import sharding

STATUS = 143  # exit status of a job that saved and stopped: 128 + SIGTERM


class Preempted(Exception):
    """The job was told to stop and has saved what it had: the same command goes on from there."""


def watch() -> Callable[[], bool]:
    """From now on SIGTERM and SIGUSR1 only leave a note; f() says at a safe point whether to stop.

    A second signal of the kind ends the process at once. Of several processes one notice stops all
    of them at the same safe point, so all have to ask at the same points.
    """
    received = []

    def note(number, _frame):
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, note)
    return lambda: sharding.any_process(bool(received))
