"""Plans that ask several, with real sockets, a real model, real signals and a real ledger."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from books import audit, read
from loopback import Answer, Got, Loopback, events
from waits import until

from llmdispatcher import (
    AsyncDispatcher,
    Dispatcher,
    Ensemble,
    Hedge,
    HttpVendor,
    Ledger,
    LlamaCpp,
    OpenAICompatible,
    Overloaded,
    Parallel,
    Price,
    Scripted,
)
from llmdispatcher.fork import Branch
from llmdispatcher.models.reply import Outcome

pytestmark = pytest.mark.usefixtures("settled")

NEVER = 60.0


def said(text: str, finish: str | None = None) -> dict[str, Any]:
    """A chunk of the OpenAI API."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


def speaks(text: str) -> Answer:
    """Answer at once."""
    return Answer.sse(events(said(text), said("", "stop")))


def whole(text: str) -> Answer:
    """Answer at once, in one."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return Answer.json({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]})


def hangs(got: Got) -> Answer:
    """Say nothing but that an answer will come, as long as anybody reads."""
    if got.body.get("stream"):
        return Answer.sse([0.02, b": wait\n\n"] * 3000)
    headers = {"content-type": "application/json"}
    return Answer(headers=headers, chunks=(0.02, b" ") * 3000)


def answers(got: Got) -> Answer:
    """Answer in the way that was asked for."""
    return speaks("quick") if got.body.get("stream") else whole("quick")


def served(name: str, server: Loopback) -> HttpVendor:
    """A vendor at a server of ours."""
    return OpenAICompatible(name=name, base_url=f"{server.url}/v1", models=["m"], api_key="none")


@pytest.mark.parametrize("plan", [Parallel(), Hedge(after_s=0.05, max_extra=1)])
@pytest.mark.parametrize("verb", ["send", "stream"])
def test_a_loser_hangs_up(plan: Any, verb: str) -> None:
    """The connection of whoever lost is closed, so that its server need write no more."""
    with (
        Loopback(hangs) as slow,
        Loopback(answers) as quick,
        Dispatcher(served("slow", slow), served("quick", quick)) as d,
    ):
        if verb == "send":
            reply = d.send("hi", strategy=plan)
        else:
            with d.stream("hi", strategy=plan) as stream:
                assert "".join(delta.text for delta in stream) == "quick"
            reply = stream.reply
        assert (reply.text, reply.vendor) == ("quick", "quick")
        outcomes = {each.vendor: each.outcome for each in reply.decision.attempts}
        assert outcomes == {"slow": Outcome.CANCELLED, "quick": Outcome.SERVED}
        until(lambda: slow.open == 0)
        assert d.stats().in_flight == 0


def test_a_loser_hangs_up_in_an_event_loop() -> None:
    """The same holds for tasks."""

    async def go(slow: Loopback, quick: Loopback) -> None:
        async with AsyncDispatcher(served("slow", slow), served("quick", quick)) as d:
            for plan in (Parallel(), Hedge(after_s=0.05, max_extra=1)):
                async with d.stream("hi", strategy=plan) as stream:
                    assert "".join([delta.text async for delta in stream]) == "quick"
                assert (await d.send("hi", strategy=plan)).vendor == "quick"
            assert d.stats().in_flight == 0
            assert len(asyncio.all_tasks()) == 1

    with Loopback(hangs) as slow, Loopback(answers) as quick:
        asyncio.run(go(slow, quick))
        until(lambda: slow.open == 0)


DEMO = Path(str(files("llmdispatcher.models") / "demo.gguf"))
ASKED: dict[str, Any] = {"prompt": "What is the capital of France?", "max_tokens": 20}


def test_a_real_model_races_a_server_and_votes_with_itself() -> None:
    """A model of this machine wins against a server that hangs, after it was loaded.

    Its own answers, decoded in one batch and each with its own seed, are counted.
    """
    here = LlamaCpp(DEMO, name="here", isolation="thread")
    with Loopback(hangs) as slow, Dispatcher(served("slow", slow), here) as d:
        reply = d.send(**ASKED, strategy=Parallel(), temperature=0)
        with d.stream(**ASKED, strategy="parallel", temperature=0) as stream:
            assert "".join(delta.text for delta in stream) == reply.text
        until(lambda: slow.open == 0)
        vote = Ensemble(same_model=True)
        voted = d.send(**ASKED, strategy=vote, vendor="here", temperature=0.2, seed=1)

    assert ("Paris" in reply.text, reply.vendor) == (True, "here")
    assert voted.text == reply.text
    assert 2 <= [each.outcome for each in voted.decision.attempts].count(Outcome.SERVED) <= 3


def test_what_plans_cost_is_in_the_ledger(tmp_path: Path) -> None:
    """Every attempt has a row, of the vendor that was asked, under one request."""
    specs = (
        Scripted([NEVER], name="slow", price=Price.per_million(1, 1)),
        Scripted([0.01, "ok"], name="quick", price=Price.per_million(2, 2)),
        Scripted(Overloaded("full"), name="fails", price=Price.per_million(0.5, 0.5)),
    )
    path = tmp_path / "ledger.db"
    with closing(Ledger(path)) as ledger, Dispatcher(*specs, ledger=ledger) as d:
        reply = d.send("hi", strategy=Parallel(count=2))
    rows = read(path, "SELECT vendor, number, fate, request_id FROM attempts ORDER BY id")

    first = [row for row in rows if row[3] == rows[0][3]]
    assert {row[0]: row[2] for row in first} == {
        "fails": "absorbed",
        "slow": "cancelled",
        "quick": "served",
    }
    assert sorted(row[1] for row in first) == [1, 2, 3]
    assert len(reply.decision.attempts) == len(first)
    assert audit(path)["open"] == 0


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Have SIGINT interrupt, also where whoever started this program has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_ends_a_race() -> None:
    """The main thread raises KeyboardInterrupt, with everything stopped and settled."""
    with Dispatcher(*(Scripted([NEVER], name=name) for name in "abc")) as d:

        def press() -> None:
            until(lambda: sum(each.status.running for each in d.vendors()) == 3)
            time.sleep(0.2)  # by then the main thread waits for them, most often
            signal.raise_signal(signal.SIGINT)

        threading.Thread(target=press).start()
        with pytest.raises(KeyboardInterrupt):
            d.send("hi", strategy=Parallel(count=3))
        assert d.stats().in_flight == 0
        assert d.stats().total.cancelled == 3
        names = [thread.name for thread in threading.enumerate()]
        assert not [name for name in names if name.startswith("llmdispatcher-branch")]


def test_a_cancelled_task_ends_a_race() -> None:
    """CancelledError is raised as asyncio expects, and the books balance."""

    async def go() -> None:
        specs = (Scripted([NEVER], name=name) for name in "abc")
        async with AsyncDispatcher(*specs) as d:
            for plan in (Parallel(count=3), Hedge(), Ensemble()):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(d.send("hi", strategy=plan), 0.1)
                assert d.stats().in_flight == 0
                assert len(asyncio.all_tasks()) == 1
            assert d.stats().total.cancelled == 7

    asyncio.run(go())


def test_races_in_an_event_loop_leave_nothing_behind() -> None:
    """After three hundred of them, side by side, there is no task and no branch left."""

    async def go() -> None:
        specs = (Scripted([NEVER], name="slow"), Scripted("ok", name="quick"))
        async with AsyncDispatcher(*specs) as d:
            for _ in range(30):
                many = (d.send("hi", strategy=Parallel()) for _ in range(10))
                assert {reply.text for reply in await asyncio.gather(*many)} == {"ok"}
            assert len(asyncio.all_tasks()) == 1
            assert d.stats().in_flight == 0
            assert (d.stats().total.served, d.stats().total.cancelled) == (300, 300)
        gc.collect()
        assert not [each for each in gc.get_objects() if isinstance(each, Branch)]

    asyncio.run(go())


def test_what_a_race_held_is_freed_at_once() -> None:
    """No garbage collection has to find it."""
    specs = (Scripted([NEVER], name="slow"), Scripted("ok", name="quick"))
    gc.collect()
    gc.disable()
    try:
        with Dispatcher(*specs) as d:
            assert d.send("hi", strategy=Parallel()).text == "ok"
            until(lambda: not [each for each in gc.get_objects() if isinstance(each, Branch)])
    finally:
        gc.enable()


def test_a_forgotten_race_ends() -> None:
    """A stream that nobody holds any more stops all that it asked."""
    with Dispatcher(Scripted(["a", NEVER], name="a"), Scripted([NEVER], name="b")) as d:
        next(d.stream("hi", strategy=Parallel()))
        until(lambda: d.stats().in_flight == 0)
        assert d.stats().total.cancelled == 2


def test_many_races_at_once() -> None:
    """``send_many`` sends each by its plan."""
    specs = (Scripted([NEVER], name="slow"), Scripted("ok", name="quick"))
    with Dispatcher(*specs, strategy=Parallel()) as d:
        replies = d.send_many(["hi"] * 20)
        assert [str(reply) for reply in replies] == ["ok"] * 20
        assert d.stats().in_flight == 0
