"""What the tables of errors are checked with."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.vendors.wire.exchange import Head
from llmdispatcher.vendors.wire.faults import Habits, of_answer, of_message

Row = tuple[str, int, Any, type[DispatcherError], dict[str, Any], dict[str, str]]
"""Where it comes from, status, body, class, facts (and what it says), headers."""

Judge = Callable[..., None]


@pytest.fixture
def judge() -> Judge:
    """Check what an answer stands for: its class, and the facts that are named."""

    def check(row: Row, habits: Habits | None = None) -> None:
        _, status, body, expected, facts, headers = row
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", **headers}
        if status < 300:
            error = of_message(json.loads(data), habits)
        else:
            error = of_answer(Head(status, sent), data, habits)
            assert getattr(error, "status", None) == status

        assert type(error) is expected, error
        given = {name: getattr(error, name) for name in facts.keys() - {"says"}}
        assert given == {name: facts[name] for name in given}
        assert facts.get("says", "") in str(error)
        assert str(error).isprintable()
        assert len(str(error)) < 1000

    return check
