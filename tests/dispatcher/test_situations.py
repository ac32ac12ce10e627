"""Whom the dispatcher asks first, against an enumerator that knows nothing of how it chooses."""

from __future__ import annotations

import pytest
from enumerator import choice
from shop import request, shop
from situations import SITUATIONS, Situation

AT_LEAST = 60


@pytest.fixture
def asked_once() -> None:
    """Breakers and retries are the product's own here."""


def test_there_are_situations_enough() -> None:
    """The table is as long as was promised, and no title stands in it twice."""
    titles = [each.title for each in SITUATIONS]

    assert len(set(titles)) == len(titles) >= AT_LEAST


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.title)
def test_whoever_is_best_is_asked_first(situation: Situation) -> None:
    """The first candidate is the first of the best order, and it is where the request goes."""
    asked, offers = situation.asked, situation.offers
    expected = choice(asked, offers)
    asking = request(asked, offers)
    with shop(asked, offers) as d:
        told = d.explain(asking)
        found = [f"{each.vendor}/{each.model}" for each in told.candidates]

        assert (found or ["nobody"])[0] == expected, str(told)
        if expected != "nobody" and not any(each.state == "loading" for each in offers):
            reply = d.send(asking)
            assert f"{reply.vendor}/{reply.model}" == expected
