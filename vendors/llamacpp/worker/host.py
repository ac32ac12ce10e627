"""The host in a child process: starts it, talks to it, notices when it dies or hangs.

One thread owns the child: it starts it, reads all that it says, and looks now and then whether it
still works and keeps to its limits. Another writes, so that nobody who submits a request ever waits
for the child. Whatever becomes of the child, every call ends: with what it said, or with an error
that names the cause.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import Future
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import (
    BadReply,
    DispatcherError,
    EngineCrashed,
    ExecutableNotFound,
    OutOfMemory,
    Refused,
    TimedOut,
    VendorError,
)
from llmdispatcher.models.reply import Saved
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.llamacpp.child import causes
from llmdispatcher.vendors.llamacpp.engine.inbox import CLOSED, crashed
from llmdispatcher.vendors.llamacpp.host import Vitals, progress
from llmdispatcher.vendors.llamacpp.worker import codec, obituary
from llmdispatcher.vendors.llamacpp.worker.calls import Calls, WorkerCall
from llmdispatcher.vendors.llamacpp.worker.guard import Guard
from llmdispatcher.vendors.llamacpp.worker.line import Line, open_line
from llmdispatcher.vendors.llamacpp.worker.link import PROTOCOL, Gone
from llmdispatcher.vendors.llamacpp.worker.pulse import Beat, Pulse
from llmdispatcher.vendors.mailbox import fire

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.hosting import Life
    from llmdispatcher.vendors.llamacpp.limits.caps import Measure

_log = logging.getLogger("llmdispatcher.llamacpp")
_log.addHandler(logging.NullHandler())  # without one, Python prints warnings on stderr

TICK_S = 0.2
"""How often the child's memory and pulse are looked at."""

HELLO_S = 60.0
"""How long Python may take to start and to import what the engine needs, from a slow disk."""

CLOSE_S = 5.0
"""How long a child that was told to end may take. A step in progress is interrupted, so it is
quick; then it is killed."""

JOIN_S = CLOSE_S + 5.0
"""How long ``join`` waits: for that, and for the system to take tens of gigabytes back."""


class WorkerHost:
    """See ``host.Host``."""

    def __init__(self, life: Life) -> None:
        """Begin. Raises OutOfMemory where no thread can be started."""
        self._life = life
        self.loaded: Future[None] = Future()
        self.loaded.set_running_or_notify_cancel()  # from here on nobody can cancel the load
        self.measures: tuple[Measure, ...] = ()
        """How the system holds the child to its limits."""
        self._pid = os.getpid()
        self._began_s = time.monotonic()
        self._calls = Calls(life.card.context_tokens)
        self._stopping = threading.Event()
        self._error: DispatcherError | None = None
        self._failed: DispatcherError | None = None
        """Why the load failed, as the child said."""
        self._killed_for: DispatcherError | None = None
        self._death: tuple[VendorError, int | None] | None = None
        self._line: Line | None = None
        self._guard = Guard(life)
        self._pulse = Pulse(self._began_s)
        self._looked_s = self._began_s
        self._counts = (0, 0)
        self._thread = threading.Thread(
            target=self._run, name=f"llama-{life.card.model}", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:
            raise OutOfMemory(f"no thread could be started: {error}") from None

    # -- what others ask ------------------------------------------------------------------------

    def submit(self, work: Work) -> WorkerCall:
        """See ``host.Host.submit``."""
        line = self._there()
        call = self._calls.open(work, self._cancel)
        number = call.number

        def refuse(error: DispatcherError) -> None:
            self._calls.drop(call)
            fire([call.box.fail(error)])

        line.outgoing.put(lambda: ["work", number, *codec.work_out(work)], refuse)
        if self._error is not None:  # it ended meanwhile, and may not have seen this call
            refuse(copy(self._error))
        return call

    def _cancel(self, call: WorkerCall) -> None:
        line = self._line
        if line is not None and self._error is None:
            line.tell(["cancel", call.number])

    def misused(self) -> DispatcherError | None:
        """See ``host.Host.misused``."""
        if os.getpid() != self._pid:
            return EngineCrashed(
                "this process was forked after the model began to load, and the line to its worker"
                " is the parent's: make a new Dispatcher in the child"
            )
        return self._life.report.misused()

    def ended(self) -> DispatcherError | None:
        """See ``host.Host.ended``."""
        return self._error

    def has_served(self) -> bool:
        """See ``host.Host.has_served``."""
        return self._calls.has_served

    def counts(self) -> tuple[int, int]:
        """See ``host.Host.counts``: of those that run, as last told."""
        total = len(self._calls)
        running = min(self._counts[1], total)
        return total - running, running

    def vitals(self) -> Vitals:
        """See ``host.Host.vitals``."""
        return self._guard.vitals()

    def trim(self) -> None:
        """See ``host.Host.trim``."""
        if (line := self._line) is not None and self._error is None:
            line.tell(["trim"])

    def count(self, request: Request) -> Future[Saved]:
        """See ``host.Host.count``."""
        return self._keep(lambda n: ["count", n, codec.work_out(request)[1]])

    def save(self, request: Request, path: Path) -> Future[Saved]:
        """See ``host.Host.save``."""
        where = str(path.absolute())  # the worker's current folder may be another
        return self._keep(lambda n: ["save", n, codec.work_out(request)[1], where])

    def restore(self, path: Path) -> Future[Saved]:
        """See ``host.Host.restore``."""
        where = str(path.absolute())
        return self._keep(lambda number: ["restore", number, where])

    def stop(self) -> None:
        """See ``host.Host.stop``."""
        if os.getpid() != self._pid:
            return
        self._stopping.set()
        line = self._line
        if line is not None and self._error is None:
            line.tell(["close"])

    def join(self) -> None:
        """See ``host.Host.join``."""
        if os.getpid() == self._pid and threading.current_thread() is not self._thread:
            self._thread.join(JOIN_S)

    def _there(self) -> Line:
        """Return the line. Raises the error of a host that cannot be asked."""
        if error := self.misused():
            raise error
        line, ended = self._line, self._error
        if ended is not None:
            raise copy(ended)
        if line is None:
            raise Refused("the model is not loaded")
        return line

    def _keep(self, message: Any) -> Future[Saved]:  # noqa: ANN401 - makes one of a number
        line = self._there()
        future: Future[Saved] = Future()
        future.set_running_or_notify_cancel()
        number = self._calls.keep(future)

        def refuse(error: DispatcherError) -> None:
            self._calls.refuse_kept(number, error)

        line.outgoing.put(lambda: message(number), refuse)
        if self._error is not None:  # it ended meanwhile, and may not have seen this one
            refuse(copy(self._error))
        return future

    # -- the owner's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        """Live: wait for the turn, start, serve, end."""
        error: DispatcherError = Refused(CLOSED)
        try:
            before = self._life.before
            self._life = attrs.evolve(self._life, before=None)  # or lives would form a chain
            if before is not None:
                before.join()
            if not self._stopping.wait(self._life.wait_s):
                error = self._lived()
        except DispatcherError as raised:
            error = raised
        except Exception as bug:  # noqa: BLE001 - no caller may wait for ever; nothing is printed
            error = crashed(bug, "a bug in the worker's host")
        finally:
            self._end(error)
        if self._death is not None:  # told last: whoever listens may take its time
            obituary.tell(self._life, *self._death)

    def _lived(self) -> DispatcherError:
        """Start the child and serve until it ends; returns why it did."""
        self._guard.prepare()
        self._pulse = Pulse(time.monotonic(), self._guard.obey_s())
        line = open_line(self._life.spec.worker_command)
        try:
            line.child.tail.listen(lambda said: _log.debug("%s", said))
            self._guard.watch(line.child.pid)
            self._serve(line)
        except codec.Garbled as garbled:
            self._killed_for = BadReply(f"the worker wrote what is no message ({garbled})")
            line.child.kill()
        except Gone:
            pass
        finally:
            line.hang_up()
            status = self._reaped(line)
            line.close()
        return self._verdict(line, status)

    def _serve(self, line: Line) -> None:
        """Read what the child says until it is gone. Raises Gone, and Garbled."""
        self._greet(line)
        life = self._life
        line.tell(["load", codec.spec_out(life.spec), life.rung, self._guard.room()])
        self._line = line
        if self._stopping.is_set():  # it came between, and told nobody
            line.tell(["close"])
        stop_s: float | None = None
        while True:
            if (message := self._heard(line)) is not None:
                self._follow(message)
            self._look(line)
            if self._stopping.is_set():
                stop_s = stop_s or time.monotonic()
                if time.monotonic() - stop_s > CLOSE_S:
                    self._kill(line, Refused(CLOSED))

    def _heard(self, line: Line) -> list[Any] | None:
        """Return the next message, None if none comes soon. Raises Gone, and Garbled.

        The end of the line may not be seen where a process that was forked at the wrong moment
        holds its other end; so the child is looked at too.
        """
        message = line.link.receive(TICK_S)
        if message is None and line.child.poll() is not None:
            message = line.link.receive(0.0)
            if message is None:
                raise Gone("the child has ended")
        return message

    def _greet(self, line: Line) -> None:
        """Wait for the child's first word. Raises Gone, and Garbled."""
        until_s = time.monotonic() + HELLO_S
        while (message := self._heard(line)) is None:
            if self._stopping.is_set() or time.monotonic() > until_s:
                self._kill(line, TimedOut("load", HELLO_S))
        match message:
            case ["hello", protocol, version, int()]:
                if protocol != PROTOCOL:
                    told = f"the worker is of llmdispatcher {version}, which is not this one"
                    self._kill(line, ExecutableNotFound(f"{told}: install both anew"))
            case _:
                raise codec.Garbled("it does not begin with a greeting")

    def _follow(self, message: list[Any]) -> None:
        """Take one message."""
        match message:
            case ["pieces", int(waiting), int(running), list(letters)]:
                self._counts = (waiting, running)
                fire(self._calls.take(letters))
                self._guard.drew(self._calls.drawn_tokens, running, time.monotonic())
            case ["pong", _, int(steps), bool(has_work), float(cpu_s), int(faults)]:
                beat = Beat(
                    steps=steps,
                    has_work=has_work,
                    cpu_s=cpu_s,
                    faults=faults,
                    is_loading=not self.loaded.done(),
                )
                self._pulse.heard(beat)
            case ["progress", float(fraction)] if not self.loaded.done():
                self._report(fraction)
            case ["held", list(measures)]:
                self.measures = self._guard.held(measures)
            case ["loaded"] if not self.loaded.done():
                self.loaded.set_result(None)
            case ["failed", error]:
                self._failed = codec.error_in(error)
            case ["ended", error]:
                self._killed_for = self._killed_for or codec.error_in(error)
            case ["done", int(number), account]:
                self._calls.kept(number).set_result(codec.saved_in(account))
            case ["undone", int(number), error]:
                self._calls.kept(number).set_exception(codec.error_in(error))
            case _:
                raise codec.Garbled(f"the message {message[0]!r} is not known")

    def _report(self, fraction: float) -> None:
        self._life.report(progress(self._life.card, fraction, self._began_s))

    def _look(self, line: Line) -> None:
        """See whether the child works, and keeps to its limits."""
        now_s = time.monotonic()
        if now_s - self._looked_s < TICK_S:
            return
        self._looked_s = now_s
        if error := self._guard.look(now_s, self.trim):
            self._kill(line, error)
        is_loading = not self.loaded.done()
        is_wanted = is_loading or self._calls.any_wanted()
        if not is_wanted and not self._pulse.has_work:
            return  # an idle worker is let sleep
        if self._pulse.ask():
            line.tell(["ping", 0])
        if is_wanted:
            self._pulse.wanted()
        else:
            self._pulse.unwanted()
        if (hang := self._pulse.look(now_s)) is not None:
            how, limit_s = hang
            hung = TimedOut("load" if is_loading else "idle", limit_s)
            # or it would read as if a deadline of the caller's had passed
            hung.args = (f"the process that runs the model hung for {limit_s:g} s: {how}",)
            self._kill(line, hung)

    def _kill(self, line: Line, error: DispatcherError) -> None:
        """End the child, for a reason that is known. Raises Gone."""
        self._killed_for = self._killed_for or error
        line.child.kill()
        raise Gone("it was killed")

    def _reaped(self, line: Line) -> int | None:
        """Wait for a child whose line is closed; one that does not go is killed."""
        status = line.child.wait(CLOSE_S)
        if status is None:
            self._killed_for = self._killed_for or TimedOut("idle", CLOSE_S)
            line.child.kill()
            status = line.child.wait(JOIN_S)
        return status

    def _verdict(self, line: Line, status: int | None) -> DispatcherError:
        """Return why it ended, and remember it if it was a death."""
        if self._failed is not None:
            return self._failed
        if self._stopping.is_set():
            return Refused(CLOSED)
        if status is None:  # not even SIGKILL ended it: it hangs inside the system
            error: VendorError = EngineCrashed(f"process {line.child.pid} cannot be ended")
        else:
            error = causes.cause(
                causes.End(
                    status=status,
                    tail=line.child.tail.text(),
                    killed_for=self._killed_for,
                    oom_kills=self._guard.oom_kills(),
                )
            )
        self._death = error, status
        return error

    def _end(self, error: DispatcherError) -> None:
        """Leave nobody waiting. Who asked since the line broke, and until now, learns why too."""
        self._error, self._line = error, None
        self._calls.fail(lambda: copy(error))
        self._guard.close()
        if not self.loaded.done():
            self.loaded.set_exception(error)
