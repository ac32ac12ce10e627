"""Ties a worker's life to its parent's, from inside.

The pipe between them says when the parent is gone, unless another process inherited its other end.
So Linux is asked to kill the worker with the thread that started it, and elsewhere on POSIX a
thread looks now and then who the parent is. Windows does it from outside, with a job object.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

LOOK_S = 0.25
"""How often to look for the parent, where the system does not tell: a worker is to be gone within
a second."""

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def tie(parent: int) -> None:
    """End this process when the process ``parent`` ends; at once if it has already."""
    if sys.platform == "win32":
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    if sys.platform != "linux":
        threading.Thread(target=_watch, args=(parent,), name="tether", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(0)
