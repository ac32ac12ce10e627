"""Keys show themselves nowhere, and errors are rid of them."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from talkative import shown

from llmdispatcher import Secret
from llmdispatcher.models.errors import BadReply, BadRequest, StreamInterrupted
from llmdispatcher.vendors.http.secret import frameless, hushed, is_sensitive, secret, secrets_of

KEY = "zq-geheim-0123456789"


def test_a_key_is_shown_by_nothing() -> None:
    """repr, str, format, lists, errors: none of them has it."""
    key = Secret(KEY)
    for told in (repr(key), str(key), f"{key}", f"{key!r:>30}", repr([key]), repr({"k": key})):
        assert KEY not in told
    assert key.reveal() == KEY
    with pytest.raises(TypeError):
        json.dumps(key)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="environment variable"):
            pickle.dumps(key, protocol)


def test_keys_compare_and_copy_like_text() -> None:
    """Blanks around one are no part of it, and a copied configuration has the same key."""
    assert Secret(f" {KEY}\r\n") == Secret(KEY)
    assert hash(Secret(KEY)) == hash(Secret(KEY))
    assert Secret(KEY) != Secret("other")
    assert Secret(KEY) != KEY
    assert copy.copy(Secret(KEY)) == copy.deepcopy([Secret(KEY)])[0] == Secret(KEY)
    assert secret(None) is None
    assert secret(KEY) == secret(Secret(KEY)) == Secret(KEY)


@pytest.mark.parametrize(
    "text",
    ["", "  ", f"{KEY}\nx", f"{KEY}\r\nHost: evil", f"{KEY}\0", f"{KEY}ü", f"{KEY}\x7f", "\ud800"],
)
def test_what_cannot_be_a_key_is_refused_without_being_shown(text: str) -> None:
    """Also where the frames of the error are shown with their variables."""
    for make in (Secret, secret):
        with pytest.raises(BadRequest, match="api_key") as caught:
            make(text)
        assert KEY not in shown(caught.value)


@pytest.mark.parametrize("value", [0, 1.5, b"sk", ["sk"], object()])
def test_what_is_no_text_is_no_key(value: object) -> None:
    """A number or bytes would be sent as they print."""
    with pytest.raises(BadRequest, match="api_key"):
        Secret(value)  # type: ignore[arg-type]


def test_errors_are_rid_of_keys() -> None:
    """Their words and their facts; what a reply said until then is a reply's."""
    error = StreamInterrupted(f"no: {KEY}", partial=f"the key is {KEY}", request_id=f"r-{KEY}")
    hushed(error, (KEY,))
    assert str(error) == "no: [redacted]"
    assert error.request_id == "r-[redacted]"
    assert error.partial == f"the key is {KEY}"
    wrong = hushed(BadRequest("x", KEY, f"not {KEY}"), (KEY,))
    assert KEY not in str(wrong)
    assert wrong.value == "[redacted]"
    assert hushed(BadReply(KEY), ()).args == (KEY,)


def test_errors_are_rid_of_frames() -> None:
    """Of all that they came from, groups and circles among it."""

    def fail() -> None:
        first = ValueError(1)
        raise ExceptionGroup("g", [KeyError(2), first]) from first

    with pytest.raises(ExceptionGroup) as caught:
        fail()
    error = caught.value
    assert error.__cause__ is not None
    error.__cause__.__context__ = error
    frameless(error)
    assert error.__traceback__ is None
    frameless(None)


@pytest.mark.parametrize(
    ("headers", "proxy", "found"),
    [
        ({"authorization": f"Bearer {KEY}"}, None, {f"Bearer {KEY}", KEY}),
        ({"X-API-Key": KEY}, None, {KEY}),
        ({"x-goog-api-key": KEY}, None, {KEY}),
        ({"Cookie": "session=abcdef"}, None, {"session=abcdef"}),
        ({"x-title": "my program", "user-agent": "mine"}, None, set()),
        ({}, "http://user:p%40ssw@proxy:1", {"p%40ssw", "p@ssw"}),
        ({}, "http://proxy:1", set()),
        ({"x-key": "abc"}, None, set()),
    ],
)
def test_what_must_not_be_shown_is_known(
    headers: dict[str, str], proxy: str | None, found: set[str]
) -> None:
    """Values of headers that carry keys, with and without their scheme, and a proxy's password."""
    assert set(secrets_of(headers, proxy)) == found
    assert all(is_sensitive(name) for name in headers) or not found
