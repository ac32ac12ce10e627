"""Keeps descriptors that a child inherits clear of the three that every process takes for its own.

In a program whose standard input, output and errors are closed, as a service's may be, a new pipe
gets their numbers; a child's own output would then be put in its place.
"""

from __future__ import annotations

import os
import sys

STANDARD = 3
"""Descriptors 0, 1 and 2 are input, output and errors."""


def clear(descriptor: int) -> int:
    """Return a descriptor of the same thing above the standard ones; the other is closed then.

    Raises OSError where there is no more room for one; then the other stays open.
    """
    if descriptor >= STANDARD or sys.platform == "win32":
        return descriptor
    import fcntl  # noqa: PLC0415 - not on Windows

    other = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, STANDARD)
    os.close(descriptor)
    return other
