"""Which conversations which models have read: their vendors bill what they remember for less.

A conversation is known by what was said before the last reply; who served that remembers it, for
some minutes. How much of it is billed for less, usage tells: see ``history.Record.cached``.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from llmdispatcher.models.embedding import Work
from llmdispatcher.models.message import Message, Role
from llmdispatcher.models.request import Request

LIFE_S = 300.0
"""So long vendors keep a prompt that nobody asks about: OpenAI and Anthropic name five minutes."""

LEAST_TOKENS = 1024
"""Shorter prompts are not cached, by the documents of OpenAI and Anthropic."""

MAX_CONVERSATIONS = 1024

Warm = Mapping[str, int]
"""By the name of a model: how many tokens of a conversation it was shown."""

_COLD: Warm = {}


class Warmth:
    """Remembers who was shown which conversation. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._shown: OrderedDict[int, dict[str, tuple[int, float]]] = OrderedDict()

    def of(self, request: Work, now_s: float) -> Warm:
        """Return who has been shown how much of this request before."""
        if not self._shown or not isinstance(request, Request):
            return _COLD
        key = _key(_before_last_reply(request.messages))
        shown = None if key is None else self._shown.get(key)
        if not shown:
            return _COLD
        return {n: tokens for n, (tokens, at_s) in shown.items() if now_s - at_s < LIFE_S}

    def served(self, request: Work, model: str, tokens: int, now_s: float) -> None:
        """Take note that a model was shown a request, and wrote a reply: so many tokens."""
        if tokens < LEAST_TOKENS or not isinstance(request, Request):
            return
        key = _key(request.messages)
        if key is None:
            return
        before = _key(_before_last_reply(request.messages))
        with self._lock:
            shown = dict(self._shown.get(before, {})) if before is not None else {}
            shown[model] = tokens, now_s  # others still remember what they were shown earlier
            self._shown[key] = shown
            self._shown.move_to_end(key)
            while len(self._shown) > MAX_CONVERSATIONS:
                self._shown.popitem(last=False)


def _before_last_reply(messages: Sequence[Message]) -> Sequence[Message]:
    """Return what the last reply in a conversation answered; nothing where there is none."""
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].role is Role.ASSISTANT:
            return messages[:at]
    return ()


def _key(messages: Sequence[Message]) -> int | None:
    """Return a number for a conversation; Python remembers the hash of each text."""
    return hash(tuple(messages)) if messages else None
