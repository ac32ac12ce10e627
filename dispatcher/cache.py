"""``Cache``: replies that are kept, so that the same request to the same model is answered at once.

Looks up and stores in a thread of its own, one for each process, so that no request and no event
loop waits for a disk. Whatever is wrong with the file, requests are served; an event says so once.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher.models.check import path_of
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.event import CacheTrouble
from llmdispatcher.models.reply import Reply
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.contract import Report

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from llmdispatcher.cache_file import CacheFile
    from llmdispatcher.cache_reply import Kept

MIB = 2**20

MAX_WAITING = 256
"""Look-ups and replies that wait for the file; those beyond find nothing, and are not kept."""

Maker = tuple[str, str, Callable[[], str]]
"""Who makes a reply: vendor, model, and what says which model stands behind that name."""


@attrs.frozen
class Found:
    """A kept reply."""

    kept: Kept
    stored_s: float
    """When; seconds since 1970."""


class Cache:
    """Replies of earlier requests, in a file that any number of programs share.

    Args:
        path: the file; by default ``llmdispatcher/replies.sqlite3`` in the user's cache folder. It
            holds replies, and hashes of what was asked, and is readable by its owner alone.
        max_mb: MiB of replies to keep; those that were not used for the longest time go first.
        ttl_s: how old a reply may be, in seconds; None: any age.
        store_sampled: also keep replies that were drawn at random: of requests without a seed whose
            temperature is not 0. The same question then has the same answer every time.
        wall: tells the time in seconds since 1970.

    A reply is found by everything that it may depend on: all that the request says, and the model
    that would be asked first. Kept are whole replies alone. Nothing is opened before the first
    request. May be shared by dispatchers and threads; stays open when they are closed.
    """

    def __init__(
        self,
        path: str | PathLike[str] | None = None,
        *,
        max_mb: float = 64,
        ttl_s: float | None = None,
        store_sampled: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Raises BadRequest for a value that cannot be."""
        self.max_bytes = int(_positive("max_mb", max_mb) * MIB)
        self.ttl_s = None if ttl_s is None else _positive("ttl_s", ttl_s)
        if not isinstance(store_sampled, bool):
            raise BadRequest("store_sampled", store_sampled, "True or False")
        self.store_sampled = store_sampled
        self._path = None if path is None else path_of("path", path)
        self._wall = wall
        self._lock = threading.RLock()  # a signal handler may close what this thread is using
        self._hands: dict[int, _Hand] = {}
        """Of each process one: a forked one leaves its parent's alone."""
        self._closed = False
        self._end = weakref.finalize(self, _finish, self._hands, wait=False)

    def takes(self, request: Request) -> bool:
        """Whether a request has a reply that is worth keeping: not one that is drawn at random."""
        drawn = request.sampling
        return self.store_sampled or drawn.temperature == 0 or drawn.seed is not None

    def find(self, request: Request, maker: Maker, report: Report) -> Future[Found | None]:
        """Begin to look for a reply; the future never fails."""
        from concurrent.futures import Future  # noqa: PLC0415 - slow to import

        found: Future[Found | None] = Future()
        found.set_running_or_notify_cancel()  # who stops waiting stops nobody
        hand = self._hand()
        if hand is None or not hand.do(lambda: hand.find(request, maker, report, found)):
            found.set_result(None)
        return found

    def keep(self, request: Request, maker: Maker, reply: Reply, report: Report) -> None:
        """Have a reply stored, some time soon."""
        hand = self._hand()
        if hand is not None:
            hand.do(lambda: hand.keep(request, maker, reply, report))

    def close(self) -> None:
        """Store what waits and close the file; then nothing is found or kept. Idempotent."""
        with self._lock:
            self._closed = True
        _finish(self._hands, wait=True)

    def _hand(self) -> _Hand | None:
        with self._lock:
            if self._closed:
                return None
            if os.getpid() not in self._hands:
                from llmdispatcher import cache_file  # noqa: PLC0415 - sqlite3 takes 5 ms

                path = self._path or cache_file.default_path()
                file = cache_file.CacheFile(path, self.max_bytes, self.ttl_s, self._wall)
                self._hands[os.getpid()] = _Hand(file)
            return self._hands[os.getpid()]


def _positive(name: str, value: Any) -> float:  # noqa: ANN401 - what was given
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < 2**40:
        raise BadRequest(name, value, "a number above 0")
    return float(value)


def _finish(hands: dict[int, _Hand], *, wait: bool) -> None:
    hand = hands.pop(os.getpid(), None)
    if hand is not None:
        hand.end(wait=wait)


class _Hand:
    """The thread of one process, and the file that it alone uses."""

    def __init__(self, file: CacheFile) -> None:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - slow to import

        self._file = file
        self._pool: ThreadPoolExecutor = ThreadPoolExecutor(1, "llmdispatcher-cache")
        self._lock = threading.Lock()
        self._waiting = 0
        self._told: str | None = None
        """The last trouble that was told, until a reply is stored again."""

    def do(self, work: Callable[[], None]) -> bool:
        """Have something done; False if there is too much to do, or this has ended."""
        with self._lock:
            if self._waiting >= MAX_WAITING:
                return False
            self._waiting += 1
        try:
            self._pool.submit(self._done, work)
        except RuntimeError:  # it was closed, or Python is ending
            return False
        return True

    def _done(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._waiting -= 1
        work()

    def find(
        self, request: Request, maker: Maker, report: Report, found: Future[Found | None]
    ) -> None:
        """Look for a reply, and note that it was used."""
        result, key = None, _key(request, maker)
        try:
            if key is not None and (row := self._try(lambda: self._file.get(key), report)):
                from llmdispatcher import cache_reply  # noqa: PLC0415 - for what was found

                kept = cache_reply.unpacked(row[0])
                result = None if kept is None else Found(kept, row[1])
        finally:
            found.set_result(result)
        if key is not None and result is not None:
            self._try(lambda: self._file.touch(key), report)

    def keep(self, request: Request, maker: Maker, reply: Reply, report: Report) -> None:
        """Store a reply."""
        from llmdispatcher import cache_reply  # noqa: PLC0415 - for what is stored

        if (key := _key(request, maker)) is not None:
            body = cache_reply.packed(reply)
            if self._try(lambda: self._file.put(key, body), report):
                self._told = None  # there is room again; that it can be read says nothing of that

    def _try(self, work: Callable[[], Any], report: Report) -> Any:  # noqa: ANN401 - what it returns
        """Do something with the file. Trouble is told once; a corrupt file is begun anew."""
        from llmdispatcher import cache_file  # noqa: PLC0415 - loaded before

        try:
            return work()
        except cache_file.FAILURES as error:
            self._trouble(error, report)
            return None

    def _trouble(self, error: Any, report: Report) -> None:  # noqa: ANN401 - of ``FAILURES``
        from llmdispatcher import cache_file  # noqa: PLC0415 - loaded before

        kind, detail = cache_file.kind_of(error), f"{self._file.path}: {error}"
        if kind == "corrupt":
            try:
                aside = self._file.move_aside()
            except OSError as failure:
                detail += f"; it cannot be moved aside: {failure}"
            else:
                detail += "" if aside is None else f"; it was moved to {aside}, and begun anew"
        else:
            self._file.close()
        if self._told != kind:
            self._told = kind
            report(CacheTrouble(kind=kind, detail=detail))

    def end(self, *, wait: bool) -> None:
        """Do what is left, close the file and end the thread."""
        try:
            self._pool.submit(self._file.close)
        except RuntimeError:  # Python is ending: the thread has done what was left, and gone
            self._file.close()
        self._pool.shutdown(wait=wait)


def _key(request: Request, maker: Maker) -> bytes | None:
    """Return the key; None where it cannot be told who makes the reply, or what is asked."""
    from llmdispatcher import cache_key  # noqa: PLC0415 - hashes are few programs' need

    vendor, model, identity = maker
    if not (told := identity()):
        return None
    try:
        return cache_key.key(request, (vendor, model, told))
    except TypeError:
        return None
