"""Conversations that outlive their process, through the public door."""

from __future__ import annotations

import asyncio
import stat
import sys
from pathlib import Path

import pytest
from tiny_gguf import tiny_model

from llmdispatcher import (
    AsyncDispatcher,
    BadRequest,
    Dispatcher,
    LlamaCpp,
    NoCandidate,
    Scripted,
    StateUnusable,
    assistant,
    user,
)

TALK = [
    user("What is llmdispatcher? Tell me what it does for programs that need a model, please."),
    assistant("It sends each prompt to the cheapest model that can answer it."),
    user("And what is the capital of France?"),
]


def test_a_conversation_is_taken_up_again(tmp_path: Path) -> None:
    """What was saved by one dispatcher is not read again by the next, which says the same."""
    path = tmp_path / "talk.state"
    with Dispatcher("embedded") as d:
        said = d.send(TALK, temperature=0, max_tokens=20)
        saved = d.save_state(path, TALK)
    with Dispatcher("embedded") as d:
        restored = d.restore_state(path)
        again = d.send(TALK, temperature=0, max_tokens=20)

    assert (restored, again.text) == (saved, said.text)
    assert again.usage.cached_tokens == saved.tokens - 1
    assert saved.size_bytes == path.stat().st_size
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, "it is as private as the conversation"


def test_saving_reads_what_is_not_remembered(tmp_path: Path) -> None:
    """A conversation that was never asked about is decoded first, which the books know of."""
    with Dispatcher("embedded") as d:
        saved = d.save_state(tmp_path / "x", TALK)

        assert saved.tokens > 32
        assert d.stats().total.usage.completion_tokens <= 1


def test_asyncio_does_the_same(tmp_path: Path) -> None:
    """Both verbs have their awaitable twins."""

    async def main() -> None:
        async with AsyncDispatcher("embedded") as d:
            saved = await d.save_state(tmp_path / "x", TALK)
            assert await d.restore_state(tmp_path / "x") == saved

    asyncio.run(main())


def test_only_who_keeps_conversations_is_asked(tmp_path: Path) -> None:
    """A vendor that remembers nothing is no candidate, and it is said."""
    with Dispatcher(Scripted("Hello.")) as d:
        with pytest.raises(NoCandidate, match="keeps no conversations"):
            d.save_state(tmp_path / "x", TALK)
        with pytest.raises(NoCandidate, match="keeps no conversations"):
            d.restore_state(tmp_path / "x")


def test_of_several_one_must_be_named(tmp_path: Path) -> None:
    """Nobody loads one model after the other to find whose a file is."""
    first, second = (tiny_model(tmp_path / f"{name}.gguf", seed=n) for n, name in enumerate("ab"))
    with Dispatcher(
        LlamaCpp(first, name="a", isolation="thread"),
        LlamaCpp(second, name="b", isolation="thread"),
    ) as d:
        d.save_state(tmp_path / "x", TALK, vendor="a")

        with pytest.raises(BadRequest, match="a, b"):
            d.restore_state(tmp_path / "x")
        with pytest.raises(StateUnusable, match="another model file, 'a'"):
            d.restore_state(tmp_path / "x", vendor="b")
        assert d.restore_state(tmp_path / "x", vendor="a").model == "a"


def test_a_short_conversation_says_so(tmp_path: Path) -> None:
    """What takes no time to read is not worth a file."""
    with Dispatcher("embedded") as d, pytest.raises(StateUnusable, match="too short"):
        d.save_state(tmp_path / "x", "Hi!")
