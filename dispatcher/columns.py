"""Draws tables for people: boxed and as wide as the terminal, or plain and whole for a pipe."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence

import attrs

from llmdispatcher.terminal import one_line

PIPED_WIDTH = 4096
"""A reader of lines would rather scroll than guess."""

FOLDED_PART = 0.4
"""Of the width, which a column that is folded has at least, if it needs so much."""

_GAP = 3
"""Characters between two columns of a boxed table, and around all."""


@attrs.frozen(kw_only=True)
class Column:
    """A column of a table."""

    title: str
    cells: Sequence[str]
    right: bool = False
    """Numbers stand at the right."""
    worth: int = 0
    """Where there is not room for all, those of least worth are left out."""
    folds: bool = False
    """Its cells are folded, and it is never left out."""


def table(columns: Sequence[Column], *, is_tty: bool, width: int | None = None) -> str:
    """Draw columns side by side, each of as many cells; those without any content are left out.

    On a terminal, of ``width`` characters or as many as it has, columns that do not fit are left
    out, and a line says which.
    """
    from rich import box  # noqa: PLC0415 - 50 ms, for this alone
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    room = (width or shutil.get_terminal_size().columns) if is_tty else PIPED_WIDTH
    told = [column for column in columns if any(column.cells) or column.folds]
    shown = _fitting(told, room) if is_tty else told
    drawn = Table(box=box.SIMPLE_HEAD if is_tty else None, pad_edge=False)
    for column in shown:
        drawn.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not column.folds,
            overflow="fold",
        )
    for row in zip(*(column.cells for column in shown), strict=True):
        drawn.add_row(*(Text(one_line(cell)) for cell in row))
    out = io.StringIO()
    Console(file=out, width=room, color_system=None, legacy_windows=False).print(drawn)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    text = "\n".join(line for line in lines if line) + "\n"
    left = [column.title for column in told if column not in shown]
    return text + (f"not shown, for want of room: {', '.join(left)}\n" if left else "")


def _fitting(columns: Sequence[Column], room: int) -> Sequence[Column]:
    """Return the columns that fit, without those of least worth."""
    kept = list(columns)
    while _width(kept, room) > room:
        can_go = [column for column in kept if not column.folds]
        if not can_go:
            break
        kept.remove(min(can_go, key=lambda column: column.worth))
    return kept


def _width(columns: Sequence[Column], room: int) -> int:
    """Return how many characters columns need side by side in so much room."""
    from rich.cells import cell_len  # noqa: PLC0415 - with the table

    needed = 0
    for column in columns:
        widest = max(
            (cell_len(one_line(cell)) for cell in (column.title, *column.cells)), default=0
        )
        needed += min(widest, int(room * FOLDED_PART)) if column.folds else widest
    return needed + _GAP * len(columns)
