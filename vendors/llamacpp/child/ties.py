"""Ties a program to this process from outside, so that it ends when this process does.

The program may be a stranger, such as llama-server, that does not look after its parent. A little
Python program is run in its place, which prepares the tie and then becomes the program: the
process stays the same one. On Linux the kernel kills a program with the thread that started it; it
forgets that where the program has privileges of its own, and a script's children are not meant. So
there, and on other POSIX systems, a watcher waits for the end of either and ends the whole group.

On Windows a Job Object does it (``limits.cage``). Never run on macOS and Windows.
"""

from __future__ import annotations

import enum
import os
import shutil
import sys
from pathlib import Path

import attrs

from llmdispatcher.models.errors import ExecutableNotFound


class Tie(enum.Enum):
    """How a program is tied to this process."""

    NONE = "none"
    """It ends by itself, or something else ties it."""
    KERNEL = "kernel"
    """PR_SET_PDEATHSIG, by a Python that becomes the program. Linux alone."""
    SETPRIV = "setpriv"
    """The same by util-linux's program, where there is no Python to be run."""
    WATCHER = "watcher"
    """A small process that waits for the end of either, and kills the program's process group."""


_EXEC = """
    if sys.argv[2] == "-":
        os.environ.pop("LC_CTYPE", None)  # Python itself sets it, in the C locale
    try:
        os.execv(sys.argv[4], sys.argv[4:])
    except OSError as error:
        os.write(said, str(error.errno).encode())
os._exit(127)
"""
"""Becomes the program, or says why not."""

_BEGIN = """
import os, sys
parent, said = int(sys.argv[1]), int(sys.argv[3])
os.set_inheritable(said, False)
"""

_KERNEL = f"""{_BEGIN}
import ctypes
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
if os.getppid() == parent:{_EXEC}"""
"""Asks who the parent is after asking for the signal: it may have died before."""

_WATCHER = f"""{_BEGIN}
import select, signal, time

def wait_for_either(pids):
    if hasattr(select, "kqueue"):
        queue = select.kqueue()
        queue.control([select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD,
            select.KQ_NOTE_EXIT) for pid in pids], 0)
        queue.control(None, 1, None)
        return
    ready = select.poll()
    for pid in pids:
        ready.register(os.pidfd_open(pid), select.POLLIN)
    ready.poll()

def look_for_both(pids):  # Linux before 5.3
    while True:
        for pid in pids:
            os.kill(pid, 0)
        time.sleep(0.25)

program = os.getpid()
between = os.fork()
if between == 0:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if os.fork() != 0:
        os._exit(0)  # the watcher is nobody's child, least of all the program's
    os.closerange(0, os.sysconf("SC_OPEN_MAX") if sys.platform == "linux" else 4096)
    try:
        try:
            wait_for_either([parent, program])
        except ProcessLookupError:
            raise
        except (AttributeError, OSError):
            look_for_both([parent, program])
    finally:
        os.killpg(program, signal.SIGKILL)  # the watcher is of this group
os.waitpid(between, 0)
if os.getppid() == parent:{_EXEC}"""
"""Keeps the group's number taken for as long as it may have to kill it. Ends with the program."""

_CODES = {Tie.KERNEL: _KERNEL, Tie.WATCHER: _WATCHER}


@attrs.frozen
class Tied:
    """What to run in a program's place."""

    command: tuple[str, ...]
    tells: bool
    """Whether it writes the number of an error to the descriptor that it is given."""


def fitting(path: str) -> Tie:
    """Return how to tie the program at ``path`` on this system."""
    if sys.platform == "win32":
        return Tie.NONE
    if sys.platform != "linux" or _is_script(path) or _has_privileges(path):
        return Tie.WATCHER
    return Tie.KERNEL if _python() else Tie.SETPRIV


def tied(tie: Tie, command: tuple[str, ...], environment_sets_ctype: bool, descriptor: int) -> Tied:  # noqa: FBT001 - in this package alone
    """Return what to run instead of ``command``, whose first word is a path.

    ``descriptor`` is where a failure is told. Raises ExecutableNotFound where there is nothing to
    tie with.
    """
    if tie is Tie.NONE:
        return Tied(command, tells=False)
    python = _python()
    if tie is Tie.SETPRIV or (python is None and tie is Tie.KERNEL):
        return Tied((_setpriv(command[0]), "--pdeathsig", "KILL", "--", *command), tells=False)
    if python is None:
        raise _untied(command[0])
    ends = (str(os.getpid()), "=" if environment_sets_ctype else "-", str(descriptor))
    return Tied((python, "-I", "-S", "-E", "-c", _CODES[tie], *ends, *command), tells=True)


def _python() -> str | None:
    """Return the interpreter, unless this is a frozen application, whose executable is itself."""
    return None if getattr(sys, "frozen", False) else sys.executable or None


def _setpriv(path: str) -> str:
    found = shutil.which("setpriv")
    if found is None:
        raise _untied(path)
    return found


def _untied(path: str) -> ExecutableNotFound:
    return ExecutableNotFound(
        f"nothing here can see to it that {path} ends with this application, which has no Python"
        " to run: install setpriv, of util-linux (Linux), or give a program that is not a script;"
        " or use engine='worker' with worker_command"
    )


def _is_script(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def _has_privileges(path: str) -> bool:
    """Whether starting the program clears the wish to be killed; see prctl(2)."""
    if sys.platform != "linux":
        return False
    try:
        return bool(os.stat(path).st_mode & 0o6000) or bool(  # noqa: PTH116 - beside getxattr
            os.getxattr(path, "security.capability")
        )
    except OSError:
        return False
