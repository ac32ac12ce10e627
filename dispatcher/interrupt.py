"""Makes Ctrl-C reach a main thread that sleeps while other threads work.

Linux gives a signal to whichever thread takes it first. If that is not the main thread, Python
notes it in a flag that a main thread asleep in a lock does not look at, so that Ctrl-C while a
model loads would be lost until the model is there. Here every Ctrl-C also wakes the main thread,
by a signal that is addressed to it alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator

WAKER: signal.Signals | None = getattr(signal, "SIGURG", None)
"""Means nothing to a program without sockets, and is ignored by default. Windows has none, and
gives Ctrl-C to the main thread anyway."""

PAUSES_S = (0.0, 0.05, 0.5)
"""When to wake: again a little later, in case the main thread was just about to fall asleep."""


@contextlib.contextmanager
def audible() -> Iterator[None]:
    """Wake this thread at each Ctrl-C, if it is the main one; no other can receive signals."""
    if WAKER is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # Python asks for it
    sleeper = threading.get_ident()
    thread = threading.Thread(
        target=_wake, args=(reader, sleeper, WAKER), name="ctrl-c", daemon=True
    )
    handler = signal.signal(WAKER, lambda *_: None)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        thread.join()
        os.close(reader)
        signal.signal(WAKER, handler)


def _wake(reader: int, sleeper: int, waker: int) -> None:
    """Read the numbers of signals as they arrive, until the other end is closed."""
    pauses_s: tuple[float, ...] = ()
    while True:
        if select.select([reader], [], [], pauses_s[0] if pauses_s else None)[0]:
            signals = os.read(reader, 64)
            if not signals:
                return
            if signal.SIGINT in signals:
                pauses_s = PAUSES_S
        else:
            signal.pthread_kill(sleeper, waker)
            pauses_s = pauses_s[1:]
