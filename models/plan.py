"""What a plan is: a way to serve one request with several answers, or in several steps."""

from __future__ import annotations

import attrs


@attrs.frozen
class Plan:
    """The base of all plans. Each is a value that says what to do; ``dispatcher.plans`` does it."""
