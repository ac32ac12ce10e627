"""What comparing a dialect with a vendor's own SDK takes: both talk to the same loopback server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx2
from pydantic import BaseModel, TypeAdapter
from replies_of import Read, streamed, whole

from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.vendors.wire.exchange import Ask, Exchange, Head

KEY = "sk-loopback"

MISSING = "nothing"
"""Stands for a field that is not there."""

Fault = Callable[[Head, bytes], DispatcherError]


def ask(base_url: str, asked: Ask) -> tuple[Head, bytes]:
    """Send what a dialect asks, as the transport would; return the answer."""
    headers = {"authorization": f"Bearer {KEY}", **asked.headers}
    method = "GET" if asked.body is None else "POST"
    with httpx2.Client(headers=headers, timeout=10) as client:
        answer = client.request(method, base_url + asked.path, json=asked.body)
    return Head(answer.status_code, dict(answer.headers)), answer.content


def ours(base_url: str, exchange: Exchange, fault: Fault, n: int = 1) -> Read:
    """Return the reply that a dialect reads. Raises its error."""
    head, body = ask(base_url, exchange.ask)
    if head.status >= 300:
        raise fault(head, body)
    if head.media_type == "text/event-stream":
        return streamed(exchange.replies, [body], n=n)
    return whole(exchange.replies, body, n)


def conforms(kind: Any, body: Mapping[str, Any]) -> None:
    """Check that a body is of an SDK's type, to the last field.

    A field that the type does not have is left out by pydantic, which shows.
    """
    adapter = TypeAdapter[Any](kind)  # which must live until all is read
    made = adapter.validate_python(body)
    if isinstance(made, BaseModel):
        made = made.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert _plain(made) == body


def _plain(value: Any) -> Any:
    """Exhaust what pydantic reads lazily."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return value
    return [_plain(each) for each in value]


def differences(ours: Any, theirs: Any) -> dict[str, tuple[Any, Any]]:
    """Return what differs between two bodies, field by field, by the way to it."""
    left, right = dict(_leaves(ours)), dict(_leaves(theirs))
    return {
        path: (left.get(path, MISSING), right.get(path, MISSING))
        for path in sorted(left.keys() | right.keys())
        if left.get(path, MISSING) != right.get(path, MISSING)
    }


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from _leaves(each, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for place, each in enumerate(value):
            yield from _leaves(each, f"{path}[{place}]")
    else:
        yield path, value
