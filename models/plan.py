"""What a plan is: a way to serve one request with several answers, or in several steps."""

from __future__ import annotations

from typing import ClassVar

import attrs


@attrs.frozen
class Plan:
    """The base of all plans. Each is a value that says what to do; ``dispatcher.plans`` does it."""

    is_side_by_side: ClassVar[bool] = False
    """Whether several are asked at once, so that nobody is waited for instead of another."""
