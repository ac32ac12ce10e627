"""The caller's ``on_event``, called so that whatever it does breaks no request."""

from __future__ import annotations

from collections.abc import Callable

from llmdispatcher.models.event import Event

OnEvent = Callable[[Event], None]


class Listener:
    """The caller's ``on_event``. Engines hold this and never the dispatcher itself."""

    def __init__(self, on_event: OnEvent | None) -> None:
        self._on_event = on_event

    def report(self, event: Event) -> None:
        """Tell the listener; its errors are its own and never reach a request."""
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:  # foreign code: whatever it raises must not break a request
            import logging  # noqa: PLC0415 - 5 ms at import, for a line that is rarely written

            log = logging.getLogger("llmdispatcher")
            if not log.handlers:  # or Python prints on stderr where nobody set logging up
                log.addHandler(logging.NullHandler())
            log.exception("on_event raised for %s", type(event).__name__)
