"""Registers the servers that run on this machine, where the program named no vendor at all.

They are looked for once, in a thread, while the program goes on; its first request waits for that,
which takes a tenth of a second at most. Only servers of which it is known that what they are told
stays on this machine are taken: a proxy may pass text on to a cloud, and nobody allowed that.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

from llmdispatcher.models.errors import ConfigError, Refused
from llmdispatcher.vendors.contract import Engine, Finder, VendorSpec
from llmdispatcher.vendors.http import scout
from llmdispatcher.vendors.http.preset import Preset

LIST_S = 0.4
"""For one server to tell its models, before the first request goes on without them."""


class Around:
    """See ``contract.Finder``."""

    def __init__(
        self, register: Callable[[VendorSpec], Engine], who: scout.Scout | None = None
    ) -> None:
        """Begin to look."""
        self._register = register
        self._scout = who or scout.shared()
        self._found: Future[None] = Future()
        self._found.set_running_or_notify_cancel()  # who stops waiting stops nobody else
        threading.Thread(target=self._look, name="llmdispatcher-around", daemon=True).start()

    def found(self, *, afresh: bool = False) -> Future[None]:  # noqa: ARG002 - looked for once
        """See ``contract.Finder.found``."""
        return self._found

    def _look(self) -> None:
        try:
            for found in self._scout.look():
                if found.landmark.stays:
                    self._take_in(found)
        finally:
            self._found.set_result(None)

    def _take_in(self, found: scout.Found) -> None:
        name = found.landmark.preset
        for unique in (name, f"{name}-{found.port}"):
            with contextlib.suppress(ConfigError, Refused, FutureTimeoutError):
                spec = Preset(name)(name=unique, base_url=found.base_url, local=True)
                engine = self._register(spec)
                if isinstance(engine, Finder):
                    engine.found().result(LIST_S)
                return
