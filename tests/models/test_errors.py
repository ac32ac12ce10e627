"""The error tree: its shape, its facts, its way through a pipe."""

from __future__ import annotations

import copy
import pickle

import pytest

from llmdispatcher.models import errors, race
from llmdispatcher.models.errors import (
    AllVendorsFailed,
    BadRequest,
    ConfigError,
    DispatcherError,
    ModelTooLarge,
    NoCandidate,
    Problem,
    RateLimited,
    StreamInterrupted,
    TimedOut,
    VendorError,
)


def tree(kind: type[DispatcherError]) -> list[type[DispatcherError]]:
    """List a class and everything below it."""
    return [kind, *(below for sub in kind.__subclasses__() for below in tree(sub))]


EXAMPLES: list[DispatcherError] = [
    ConfigError([Problem("is no number", "fallback.max_retries", "a.yaml", 3)]),
    BadRequest("top_k", -1, "at least 0"),
    errors.ContextOverflow(600, 512, vendor="v", model="m"),
    errors.Unsupported("tools", "no tools here"),
    errors.InvalidGrammar("root is missing"),
    errors.LimitReached("full", retry_after_s=2.0),
    NoCandidate({"v/m": "cannot do tools"}),
    RateLimited("slow down", vendor="v", model="m", status=429, retry_after_s=1.5),
    TimedOut("idle", 30.0, vendor="v"),
    StreamInterrupted("cut", partial="so far"),
    errors.ModelFileMissing("no file", path="/x"),
    errors.CorruptModel("bad", path="/x"),
    errors.UnsupportedArchitecture("new", architecture="x"),
    ModelTooLarge("big", needed_bytes=9, limit_bytes=5, parts={"weights": 9}),
    errors.EngineCrashed("died", signal=6, tail="GGML_ASSERT"),
    errors.Cancelled(),
    AllVendorsFailed.after([RateLimited("a", vendor="v"), TimedOut("total", 1.0)]),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", ["pickle", "copy"])
def test_errors_travel_whole(error: DispatcherError, way: str) -> None:
    """An error that went through a pipe has the same class, text and facts."""
    there = pickle.loads(pickle.dumps(error)) if way == "pickle" else copy.copy(error)  # noqa: S301

    assert type(there) is type(error)
    assert str(there) == str(error)
    facts = {k: v for k, v in vars(error).items() if k not in {"_exceptions", "value"}}
    assert {k: v for k, v in vars(there).items() if k in facts} == facts


def test_a_problem_says_where_it_is() -> None:
    """File, line and column, then the keys; what is not known is left out."""
    assert str(Problem("bad", "a.b", "x.yaml", 3, 5)) == "x.yaml:3:5: a.b: bad"
    assert str(Problem("bad", "a.b", "x.yaml", 3)) == "x.yaml:3: a.b: bad"
    assert str(Problem("bad", "a.b")) == "a.b: bad"


def test_a_value_that_cannot_be_pickled_travels_as_its_repr() -> None:
    """A BadRequest about a lock or a socket still gets through a pipe."""
    error = BadRequest("stop", lambda: None, "text")

    there = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert there.value == repr(error.value)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """The drawing at the top of the module names every class."""
    drawn = set(errors.__doc__.replace("─", " ").split()) if errors.__doc__ else set()

    classes = {kind.__name__ for kind in tree(DispatcherError)}
    assert race.NoGoodAnswer.__name__ in classes

    assert classes <= drawn


def test_vendor_errors_name_their_vendor_once_known() -> None:
    """The flow fills in who failed without overwriting what the vendor said."""
    assert str(RateLimited("slow down")) == "slow down"
    assert str(RateLimited("slow down").at("v", "m")) == "v/m: slow down"
    assert str(RateLimited("slow down", vendor="w").at("v", "m")) == "w/m: slow down"


def test_all_vendors_failed_splits_like_a_group() -> None:
    """``except*`` finds the errors in the group, and keeps its type."""
    group = AllVendorsFailed.after([RateLimited("a"), TimedOut("total", 1.0)])

    matched, rest = group.split(RateLimited)

    assert isinstance(matched, AllVendorsFailed)
    assert [type(e) for e in matched.exceptions] == [RateLimited]
    assert rest is not None
    assert [type(e) for e in rest.exceptions] == [TimedOut]
    assert "RateLimited: a" in str(group)


def test_all_problems_of_a_configuration_stand_in_one_error() -> None:
    """A ConfigError shows each problem on a line of its own, with file, line and key path."""
    error = ConfigError([Problem("bad", "a.b", "f.yaml", 2), Problem("worse")])

    assert str(error) == "f.yaml:2: a.b: bad\nworse"


def test_every_vendor_error_keeps_its_facts() -> None:
    """All classes below VendorError take the common facts by keyword."""
    for error in EXAMPLES:
        if isinstance(error, VendorError):
            assert error.status is None or error.status == 429
            assert error.request_id is None
