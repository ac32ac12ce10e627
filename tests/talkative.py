"""What the most talkative of reports would show of an error: every variable of every frame."""

from __future__ import annotations

import reprlib
import traceback


def shown(error: BaseException) -> str:
    """Return an error, with all that it came from, and what the frames hold, but for the test's."""
    kept: list[str] = []
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        kept += [repr(one), str(one), repr(one.args), *map(_held, vars(one).values())]
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if "/tests/" not in frame.f_code.co_filename:
                kept += [_held(value) for value in frame.f_locals.values()]
        left += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions
    return "\n".join(kept)


def _held(value: object) -> str:
    try:
        return repr(value)
    except (AttributeError, RecursionError):  # half made
        return reprlib.repr(type(value))
