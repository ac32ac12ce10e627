"""Runs Python in a child process that is to find the same modules as this one, and no others.

From a notebook, ``python -c``, a child of ``multiprocessing`` or a program that changed
``sys.path``; so the path goes with it. What lies in the current folder, or is named in an
environment that this process was told to ignore, is not imported: it may be anybody's.
"""

from __future__ import annotations

import json
import os
import sys

_BOOT = (
    "import json, sys;"
    "sys.path[:] = json.loads(sys.argv.pop(1));"
    "from {module} import {function};"
    "{function}()"
)


def command(module: str, function: str, *arguments: str) -> tuple[str, ...]:
    """Return what calls a function in another process, with these as ``sys.argv[1:]``.

    There must be a ``sys.executable``, which a frozen application has not.
    """
    code = _BOOT.format(module=module, function=function)
    return (sys.executable, *flags(), "-c", code, json.dumps(path()), *arguments)


def flags() -> tuple[str, ...]:
    """Return the options with which this interpreter was started, as far as imports depend on them.

    ``-P`` always: ``-c`` would else look into the current folder first.
    """
    ours = sys.flags
    given = {
        "-I": ours.isolated,
        "-E": ours.ignore_environment,
        "-s": ours.no_user_site,
        "-S": ours.no_site,
        "-B": ours.dont_write_bytecode,
    }
    return ("-P", *(flag for flag, is_set in given.items() if is_set), f"-Xutf8={ours.utf8_mode}")


def path() -> list[str]:
    """Return where this process looks for modules, as another one can be told.

    Python passes over what is no text.
    """
    found = []
    entries: list[object] = [*sys.path]  # a program may put in what it likes
    for entry in entries:
        if not isinstance(entry, str):
            continue
        try:
            found.append(os.path.abspath(entry))  # noqa: PTH100 - '' is the current folder
        except OSError:
            continue  # the current folder was removed
    return found
