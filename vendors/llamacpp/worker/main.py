"""What runs in the child process: the engine in a thread, and another that reads orders.

    main(descriptor, parent's pid)

A worker serves one model once, and ends with its parent: when the pipe closes it leaves at once, in
the middle of whatever llama.cpp does. On Linux the kernel sees to that too, since a process that
was forked from the parent may hold the pipe open.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from llmdispatcher.models.errors import DispatcherError, VendorError
from llmdispatcher.models.event import Event, LoadProgress
from llmdispatcher.models.release import VERSION
from llmdispatcher.models.reply import Saved
from llmdispatcher.vendors.llamacpp import loading
from llmdispatcher.vendors.llamacpp.engine import keeping
from llmdispatcher.vendors.llamacpp.engine.inbox import EngineCall
from llmdispatcher.vendors.llamacpp.engine.keeping import Subject
from llmdispatcher.vendors.llamacpp.engine.thread import EngineLife, start_deep
from llmdispatcher.vendors.llamacpp.loading import Terms
from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp, card_of
from llmdispatcher.vendors.llamacpp.worker import codec, ends, tether
from llmdispatcher.vendors.llamacpp.worker.holding import held
from llmdispatcher.vendors.llamacpp.worker.link import PROTOCOL, Gone, Link
from llmdispatcher.vendors.llamacpp.worker.post import Post, Slot

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.files.header import Header
    from llmdispatcher.vendors.llamacpp.plan.fit import Plan

_log = logging.getLogger("llmdispatcher.llamacpp")

_Raised = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

_TRACEBACK = "Traceback (most recent call last):"

PROGRESS_S = 0.02
"""Progress of a load is told at most so often; a large model reports thousands of tensors."""


def main(argv: list[str] | None = None) -> None:
    """Serve one parent; returns never. Arguments: the pipe's descriptor, the parent's pid."""
    descriptor, parent = map(int, sys.argv[1:3] if argv is None else argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to handle
    tether.tie(parent)
    _log_to_stderr()
    threading.excepthook = _fall
    try:
        Worker(Link(ends.inherited(descriptor))).run()
    except Gone:
        leave()


class _Discreet(logging.Formatter):
    """Tells of a bug what it was and where, and not what it said: that may be of a prompt.

    The log's end goes into crash reports.
    """

    def formatException(self, ei: _Raised) -> str:  # noqa: N802 - the base class's name
        kind, _, trace = ei
        name = "an exception" if kind is None else kind.__name__
        return "".join([f"{_TRACEBACK}\n", *traceback.format_tb(trace), name])


def _log_to_stderr() -> None:
    """Write what llama.cpp logs where the parent reads it, and passes it on."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Discreet())
    _log.addHandler(handler)
    _log.setLevel(logging.DEBUG)


def _fall(args: threading.ExceptHookArgs) -> None:
    """End this process because a thread of it did: it would not do what it is asked any more."""
    raised = args.exc_type, args.exc_value, args.exc_traceback
    _log.error("a bug in the worker", exc_info=raised)  # type: ignore[arg-type]
    os._exit(1)


def leave() -> None:
    """End this process now. Nobody is left to hear of it, and C++ destructors might hang."""
    os._exit(0)


def _room() -> None:
    """Raise OutOfMemory before a request could end this process."""
    from llmdispatcher.vendors.llamacpp.plan import planning  # noqa: PLC0415 - heavy

    planning.require_room(planning.WORKER_ROOM_BYTES)


def _faults() -> int:
    """Return how many pages this process had to wait for the disk for."""
    if sys.platform == "win32":
        return 0
    import resource  # noqa: PLC0415 - not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


class Worker:
    """One model, served to whoever holds the other end of the link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        link.send(["hello", PROTOCOL, VERSION, os.getpid()])
        kind, *values = link.receive() or [""]
        if kind != "load":
            raise codec.Garbled(f"the first order is {kind!r}")
        spec, rung, room = values
        self._spec: LlamaCpp = codec.spec_in(spec)
        self._card = card_of(self._spec)
        terms = Terms(
            rung=int(rung),
            planned=lambda plan, header: self._hold(plan, header, room),
            room=_room,
        )
        self._life = EngineLife(
            lambda go_on: loading.load(self._spec, self._card, self._report, go_on, terms)
        )
        self._post = Post(link, self._life.inbox.counts, leave)
        self._calls: dict[int, EngineCall] = {}
        self._told_s = 0.0

    def run(self) -> None:
        """Load, serve until told to close, and leave."""
        self._life.loaded.add_done_callback(self._loaded)
        threading.Thread(target=self._read, name="orders", daemon=True).start()
        engine = threading.Thread(target=self._life.run, name="engine", daemon=True)
        start_deep(engine)
        engine.join()
        self._post.wake()
        if isinstance(error := self._life.inbox.error, VendorError):
            self._link.send(["ended", codec.error_out(error)])
        leave()

    def _hold(self, plan: Plan, header: Header, room: Any) -> None:  # noqa: ANN401 - as it came
        """Let the system hold this process to its limits, now that the plan is known."""
        measures = held(plan, header, room)
        self._link.send(["held", [[m.what, m.enforced, m.how] for m in measures]])

    def _report(self, event: Event) -> None:
        self._life.beats += 1
        now_s = time.monotonic()
        if isinstance(event, LoadProgress) and (
            event.fraction in {0.0, 1.0} or now_s - self._told_s > PROGRESS_S
        ):
            self._told_s = now_s
            self._link.send(["progress", event.fraction])

    def _loaded(self, done: Future[None]) -> None:
        error = done.exception()
        if error is None:
            self._link.send(["loaded"])
        elif isinstance(error, DispatcherError):
            self._link.send(["failed", codec.error_out(error)])

    def _read(self) -> None:
        """Follow orders until there is nobody to give them."""
        try:
            while True:
                if (order := self._link.receive()) is not None:
                    self._follow(order)
        except (Gone, codec.Garbled):
            leave()

    def _follow(self, order: list[Any]) -> None:
        match order:
            case ["work", int(number), str(kind), values]:
                self._begin(number, kind, values)
            case ["cancel", int(number)]:
                if call := self._calls.pop(number, None):
                    call.cancel()
            case ["ping", stamp]:
                self._link.send(["pong", stamp, *self._beat()])
            case ["trim"]:
                self._life.trim()
            case ["count", int(number), values]:
                asked = codec.work_in("Request", values)
                counting = keeping.count(self._life.inbox, self._subject(), asked)  # type: ignore[arg-type]
                counting.add_done_callback(lambda done: self._done(number, done))
            case ["save", int(number), values, str(path)]:
                request = codec.work_in("Request", values)
                saving = keeping.save(self._life.inbox, self._subject(), request, Path(path))  # type: ignore[arg-type]
                saving.add_done_callback(lambda done: self._done(number, done))
            case ["restore", int(number), str(path)]:
                restoring = keeping.restore(self._life.inbox, self._subject(), Path(path))
                restoring.add_done_callback(lambda done: self._done(number, done))
            case ["close"]:
                self._life.inbox.close()
            case _:
                raise codec.Garbled(f"the order {order[0]!r} is not known")

    def _begin(self, number: int, kind: str, values: object) -> None:
        """Take a request on. What is wrong with it is its own caller's error."""
        slot = Slot(self._post, number)
        self._calls = {n: call for n, call in self._calls.items() if not call.box.is_over}  # type: ignore[attr-defined]
        try:
            work = codec.work_in(kind, values)
            with self._post.gathering:  # the engine may be done with it before we know what it is
                slot.call = self._life.submit(work, slot)
        except (DispatcherError, codec.Garbled) as error:
            told = error if isinstance(error, DispatcherError) else VendorError(str(error))
            if waker := slot.fail(told):
                waker.wake()
        else:
            self._calls[number] = slot.call

    def _done(self, number: int, done: Future[Saved]) -> None:
        error = done.exception()
        if isinstance(error, DispatcherError):
            self._link.send(["undone", number, codec.error_out(error)])
        else:
            self._link.send(["done", number, codec.saved_out(done.result())])

    def _beat(self) -> list[Any]:
        """Return what tells work from a hang: steps, whether there is any, processor time."""
        has_work = bool(self._life.inbox.calls()) or not self._life.loaded.done()
        return [self._life.beats, has_work, time.process_time(), _faults()]

    def _subject(self) -> Subject:
        spec = self._spec
        return Subject(
            vendor=spec.name,
            model=self._card.model,
            path=spec.model_path,
            cache_type=spec.cache_type,
        )
