"""Starts child processes: the only module of the package that does.

A child runs in a session of its own, without a shell, with the environment and the descriptors that
it is given and no others. It ends when this process ends, however that may come about. What it
prints is read as it comes, and the last of it kept. Windows: written, never run there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import attrs

from llmdispatcher.models.errors import ExecutableNotFound, OutOfMemory, VendorError
from llmdispatcher.vendors.llamacpp.child import descriptors, pidfiles, ties
from llmdispatcher.vendors.llamacpp.child.tail import Reader, Tail
from llmdispatcher.vendors.llamacpp.child.ties import Tie

LOOK_S = 0.05
"""How often to look whether a child has ended while its log is open, which mostly ends with it."""

FIRST_LOOK_S = 0.001
"""After the end of its log a child is about to end: look at once, then less often up to LOOK_S."""

MOST_EXEC_S = 10.0
"""How long to wait to hear whether the program could be started. It takes 20 ms, and seconds where
Python is read from a slow disk; what goes on longer is taken as started."""

MOST_KILL_S = 10.0
"""How long to wait for a child that was killed: one that waits for a disk or a GPU's driver ends
only then, and its memory must be taken back. Python reaps what is still not gone later."""

_NO_MEMORY = (errno.ENOMEM, errno.EAGAIN)
_NOT_A_PROGRAM = (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP)


@attrs.frozen(kw_only=True)
class Order:
    """A process to be started."""

    command: tuple[str, ...]
    """The program, by its path or its name, and its arguments. No shell looks at them."""
    environment: Mapping[str, str]
    """The whole of it; its PATH is where a program that is given by name is looked for."""
    kind: str
    """``worker`` or ``server``: what the file that remembers the child is called."""
    pass_fds: tuple[int, ...] = ()
    """Descriptors that the child gets, under the same numbers; on Windows inheritable handles."""
    dies_itself: bool = False
    """Whether the program sees to its own end when this process ends; else it is tied to it."""
    stdin: bool = False
    """Whether the child gets a pipe to read, held in ``Child.stdin``; else there is nothing."""


class Child:
    """A process that was started. Its methods may be called from any thread."""

    def __init__(self, process: subprocess.Popen[bytes], tail: Tail, reader: Reader) -> None:
        self.pid = process.pid
        self.tail = tail
        """The last lines of what it prints, standard output and error together."""
        self._process, self._reader = process, reader
        self._reaping = threading.Lock()  # nobody signals a group whose number may be another's
        self._pidfile: Path | None = None

    @property
    def stdin(self) -> IO[bytes] | None:
        """The pipe that the child reads, unbuffered, where one was ordered."""
        return self._process.stdin

    def poll(self) -> int | None:
        """Return the exit status; negative for the signal that ended it, None while it lives.

        Once there is a status, ``tail`` holds all that the child has written.
        """
        with self._reaping:
            if self._has_ended():
                self._signal_group(_KILL)  # what it started and left behind
            status = self._process.poll()
        if status is not None:
            self._reader.finish()
        return status

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the end and return as ``poll``; None if it still lives after ``timeout_s``."""
        deadline_s = time.monotonic() + timeout_s
        pause_s = FIRST_LOOK_S
        while (status := self.poll()) is None:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                break
            if self._reader.ended.is_set():
                time.sleep(min(pause_s, left_s))
                pause_s = min(2 * pause_s, LOOK_S)
            else:
                self._reader.ended.wait(min(LOOK_S, left_s))
        return status

    def terminate(self) -> None:
        """Ask it to end: SIGTERM to its process group. On Windows it is ended, as by ``kill``."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it and its process group, whatever it is doing."""
        self._end(_KILL)

    def forget(self) -> None:
        """Give back all that is held for it; kills it if it still lives. Idempotent."""
        if self.poll() is None:
            self.kill()
            self.wait(MOST_KILL_S)
        self._reader.finish()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # what was written and not read is lost with it
                self._process.stdin.close()
        pidfiles.remove(self._pidfile)
        self._pidfile = None

    def remember(self, kind: str) -> None:
        """Write down that it runs, for a later life of this program to end it."""
        self._pidfile = pidfiles.write(kind, self.pid)

    def _end(self, number: int) -> None:
        with self._reaping:
            if self._process.returncode is None:
                self._signal_group(number)

    if sys.platform == "win32":

        def _has_ended(self) -> bool:
            return False  # a job object ends what it left behind

        def _signal_group(self, _number: int) -> None:
            """Never run on Windows. There are no signals, and none that reaches another console."""
            self._process.terminate()

    else:

        def _has_ended(self) -> bool:
            """Whether it has ended and its number is still its own."""
            if self._process.returncode is not None or not hasattr(os, "waitid"):
                return False  # macOS has no waitid before Python 3.13
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            try:
                return os.waitid(os.P_PID, self.pid, flags) is not None
            except ChildProcessError:
                return False  # somebody else waited for it

        def _signal_group(self, number: int) -> None:
            # the group is gone, or (macOS) all that is left of it is a process that has ended
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


if sys.platform == "win32":
    _KILL = signal.SIGTERM
else:
    _KILL = signal.SIGKILL


def start(order: Order, tie: Tie | None = None) -> Child:
    """Start a process, from a thread that outlives it: Linux ends it with that thread.

    ``tie`` is for tests: how to tie it, where what fits this system is not meant. Raises
    ExecutableNotFound where there is no such program or it cannot be run, OutOfMemory where the
    system has no room for another process, VendorError where it refuses for another reason.
    """
    pidfiles.reap_once()
    path = _found(order)
    if tie is None:
        tie = Tie.NONE if order.dies_itself else ties.fitting(path)
    process = _started(order, (path, *order.command[1:]), tie)
    tail = Tail()
    if process.stdout is None:  # it was asked for a pipe
        raise VendorError(f"{path} was started without a pipe for what it prints")
    try:
        child = Child(process, tail, Reader(process.stdout, tail))
    except (OutOfMemory, OSError) as error:
        with process:
            process.kill()
        raise _refused(path, error) from None
    child.remember(order.kind)
    return child


def _found(order: Order) -> str:
    """Return the path of the program."""
    name = order.command[0]
    found = shutil.which(name, path=order.environment.get("PATH", os.defpath))
    if found is not None:
        return found
    if os.path.isdir(name):  # noqa: PTH112 - a name is no path yet
        what = "is a folder; give the program in it"
    elif os.path.exists(name):  # noqa: PTH110 - as above
        what = f"is not a program that this user may run; allow it: chmod +x {name}"
    elif os.path.dirname(name):  # noqa: PTH120 - as above
        what = "is not there; give the path of the program, or install it there"
    else:
        what = "is not on PATH; install it, or give the whole path of the program"
    raise ExecutableNotFound(f"{name} {what}")


def _started(order: Order, command: tuple[str, ...], tie: Tie) -> subprocess.Popen[bytes]:
    """Start it, and wait until it is the program that was ordered. Raises as ``start``."""
    try:
        heard, said = map(descriptors.clear, os.pipe())
    except OSError as error:
        raise _refused(command[0], error) from None
    try:
        what = ties.tied(tie, command, "LC_CTYPE" in order.environment, said)
        fds = (*order.pass_fds, said) if what.tells else order.pass_fds
        process = _popen(order, what.command, fds)
    except OSError as error:
        os.close(heard)
        raise _refused(command[0], error) from None
    except ExecutableNotFound:
        os.close(heard)
        raise
    finally:
        os.close(said)
    number = _failure(heard) if what.tells else 0
    os.close(heard)
    if number:
        process.communicate()
        raise _refused(command[0], OSError(number, os.strerror(number)))
    return process


def _popen(order: Order, command: tuple[str, ...], fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
    stdin = subprocess.PIPE if order.stdin else subprocess.DEVNULL
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        return subprocess.Popen(  # noqa: S603 - what the caller ordered, without a shell
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            env=dict(order.environment),
            creationflags=flags,
            startupinfo=subprocess.STARTUPINFO(lpAttributeList={"handle_list": list(fds)}),
        )
    return subprocess.Popen(  # noqa: S603 - as above
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        env=dict(order.environment),
        pass_fds=fds,
        start_new_session=True,
    )


def _failure(heard: int) -> int:
    """Return the number of the error that kept the program from starting; 0 if it runs.

    The other end of the pipe closes when the program starts. A process that was forked from this
    one at the wrong moment holds it open too, hence the limit.
    """
    if sys.platform == "win32":
        return 0
    ready = select.poll()
    ready.register(heard, select.POLLIN)
    if not ready.poll(MOST_EXEC_S * 1000):
        return 0
    return int(os.read(heard, 16) or b"0")


def _refused(path: str, error: OSError | OutOfMemory) -> VendorError:
    """Return the error of a start that failed."""
    if isinstance(error, OutOfMemory):
        return error
    told = error.strerror or str(error)
    if error.errno in _NO_MEMORY:
        return OutOfMemory(
            f"the system has no room for another process ({told}), and {path} was not started:"
            " close other programs, or raise the limit of processes or memory"
        )
    if error.errno in _NOT_A_PROGRAM:
        return ExecutableNotFound(
            f"{path} cannot be run on this machine ({told}): give a program that was built for it"
        )
    return VendorError(f"{path} was not started: {told}")
