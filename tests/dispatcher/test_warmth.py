"""Who remembers which conversation."""

from __future__ import annotations

from llmdispatcher import EmbedRequest, Request, assistant, system, user
from llmdispatcher.warmth import LEAST_TOKENS, LIFE_S, MAX_CONVERSATIONS, Warmth

FIRST = Request.of([system("be brief"), user("hi")])
SECOND = Request.of([system("be brief"), user("hi"), assistant("hello"), user("more")])
OTHER = Request.of([system("be long"), user("hi"), assistant("hello"), user("more")])


def test_who_served_a_conversation_is_warm_for_its_next_turn() -> None:
    """What was said before the last reply is what was shown; another beginning is not."""
    warmth = Warmth()
    warmth.served(FIRST, "v/m", 5000, 0.0)

    assert warmth.of(SECOND, 1.0) == {"v/m": 5000}
    assert warmth.of(OTHER, 1.0) == {}
    assert warmth.of(FIRST, 1.0) == {}


def test_it_is_forgotten_after_minutes() -> None:
    """Vendors keep a prompt for as long as that."""
    warmth = Warmth()
    warmth.served(FIRST, "v/m", 5000, 0.0)

    assert warmth.of(SECOND, LIFE_S - 1) != {}
    assert warmth.of(SECOND, LIFE_S) == {}


def test_others_still_remember_what_they_were_shown() -> None:
    """A conversation that went to another model has not left the first one's memory."""
    warmth = Warmth()
    warmth.served(FIRST, "a/m", 2000, 0.0)
    warmth.served(SECOND, "b/m", 3000, 1.0)
    third = Request.of([*SECOND.messages, assistant("and"), user("on")])

    assert warmth.of(third, 2.0) == {"a/m": 2000, "b/m": 3000}


def test_short_prompts_and_texts_to_embed_are_no_conversations() -> None:
    """Vendors do not cache what is short; a request without turns has none."""
    warmth = Warmth()
    warmth.served(FIRST, "v/m", LEAST_TOKENS - 1, 0.0)
    warmth.served(EmbedRequest.of("x"), "v/m", 5000, 0.0)

    assert warmth.of(SECOND, 1.0) == {}
    assert warmth.of(EmbedRequest.of("x"), 1.0) == {}


def test_only_so_many_are_kept() -> None:
    """The oldest conversation goes first."""
    warmth = Warmth()
    for number in range(MAX_CONVERSATIONS + 1):
        warmth.served(Request.of(f"{number}"), "v/m", 5000, 0.0)

    def follow(number: int) -> Request:
        return Request.of([user(f"{number}"), assistant("a"), user("b")])

    assert warmth.of(follow(0), 1.0) == {}
    assert warmth.of(follow(1), 1.0) != {}
    assert warmth.of(follow(MAX_CONVERSATIONS), 1.0) != {}
