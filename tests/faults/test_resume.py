"""What becomes of a stream that breaks after a part was shown, as the caller chose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from faults import misdeeds as do
from faults.misdeeds import ANSWER, Manner, saying
from faults.ours import begins_anew
from faults.server import Behave, FaultServer

from llmdispatcher import (
    VLLM,
    AllVendorsFailed,
    Deadlines,
    Dispatcher,
    DispatcherError,
    OpenAICompatible,
    StreamInterrupted,
)

CUT = saying(Manner(cut_at=do.CUT_AT))
SHOWN = " ".join(ANSWER.split()[: do.CUT_AT])
LIMITS = Deadlines(first_token_s=20, idle_s=20)
"""Nobody falls silent here, though the machine be slow."""


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """Both roles, the primary cut in the middle."""
    with FaultServer(primary=CUT, fallback=saying()) as server:
        yield server


def vendors(server: FaultServer, *, continues: bool) -> list[Any]:
    """Return both as vendors; only vLLM continues a turn that was begun."""
    kind = VLLM if continues else OpenAICompatible
    return [
        kind(name=name, base_url=role.url, models=[name], api_key="none")
        for name, role in server.roles.items()
    ]


def streamed(
    server: FaultServer, resume: str, *, continues: bool
) -> tuple[str, list[object], DispatcherError | None]:
    """Ask for a stream; return all text that came, all events, and the error that ended it."""
    texts: list[str] = []
    events: list[object] = []
    made = vendors(server, continues=continues)
    with Dispatcher(*made, deadlines=LIMITS, on_event=events.append) as d:
        try:
            texts.extend(delta.text for delta in d.stream("Tell me.", resume=resume))
        except DispatcherError as error:
            return "".join(texts), events, error
    return "".join(texts), events, None


def test_a_broken_stream_is_continued_where_it_broke(server: FaultServer) -> None:
    """The next vendor gets the text so far as its own turn, and the reader sees one answer."""
    text, _, error = streamed(server, "continue", continues=True)

    assert error is None
    assert text == ANSWER
    assert [seen.prefix for role in server.roles.values() for seen in role.seen] == ["", SHOWN]


def test_a_stream_that_cannot_be_continued_begins_anew(server: FaultServer) -> None:
    """Whoever chose "restart" is told to forget what was shown, and sees the whole answer."""
    text, events, error = streamed(server, "restart", continues=False)

    assert error is None
    assert text == SHOWN + ANSWER
    assert [begins_anew(event) for event in events].count(True) == 1
    assert [seen.prefix for seen in server["fallback"].seen] == [""]


def test_restart_continues_where_it_can(server: FaultServer) -> None:
    """Nobody is told to forget what can be kept."""
    text, events, error = streamed(server, "restart", continues=True)

    assert error is None
    assert text == ANSWER
    assert not any(begins_anew(event) for event in events)


def test_a_broken_stream_fails_where_that_is_wanted(server: FaultServer) -> None:
    """Whoever chose "fail" gets the error with the text so far, and nobody else is asked."""
    text, _, error = streamed(server, "fail", continues=True)

    assert text == SHOWN
    assert isinstance(error, StreamInterrupted)
    assert error.partial == SHOWN
    assert not server["fallback"].seen


def test_continue_alone_never_takes_back(server: FaultServer) -> None:
    """Whoever chose "continue" agreed to forget nothing: else it ends with the text so far."""
    text, _, error = streamed(server, "continue", continues=False)

    assert text == SHOWN
    assert isinstance(error, StreamInterrupted)
    assert error.partial == SHOWN


@pytest.mark.parametrize("bad", [do.busy, do.without_prefill(do.busy)], ids=["busy", "refuses"])
def test_the_text_so_far_is_in_the_error_whoever_failed_last(
    server: FaultServer, bad: Behave
) -> None:
    """Where nobody can go on, the caller learns of the cut and keeps what came before it."""
    server.begin(primary=do.first(1, CUT, do.busy), fallback=bad)

    text, _, error = streamed(server, "continue", continues=True)

    assert text == SHOWN
    partials = [
        each.partial
        for each in (error.exceptions if isinstance(error, AllVendorsFailed) else [error])
        if isinstance(each, StreamInterrupted)
    ]
    assert SHOWN in partials


def test_a_whole_reply_leaves_no_trace_of_the_cut(server: FaultServer) -> None:
    """Where nothing was shown, nothing is continued: the reply is one vendor's, from its start."""
    with Dispatcher(*vendors(server, continues=False), deadlines=LIMITS) as d:
        reply = d.send("Tell me.")

    assert reply.text == ANSWER
    assert reply.vendor == "fallback"
    assert [attempt.vendor for attempt in reply.decision.attempts][-2:] == ["primary", "fallback"]
