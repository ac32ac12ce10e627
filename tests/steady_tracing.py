"""Threads begin while others begin, also where coverage is measured on Python 3.11.

There each thread calls ``sys.settrace`` as it begins. While one is at it, Python 3.11 refuses
another ("Cannot install a trace function while another trace function is being installed"), and
that one ends before its work. It can call again at once: here it does.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

TRIES = 1000


class SteadySystem:
    """The module ``sys``, as far as ``threading`` knows."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)

    def settrace(self, function: Callable[..., Any] | None) -> None:
        """Call it again where another thread was at it."""
        for _ in range(TRIES):
            try:
                sys.settrace(function)
            except RuntimeError:
                continue
            return
        sys.settrace(function)


def settle() -> None:
    """Have the threads of this process begin so, if they are traced."""
    if sys.version_info < (3, 12) and sys.gettrace() is not None:
        threading._sys = SteadySystem()  # type: ignore[attr-defined]
