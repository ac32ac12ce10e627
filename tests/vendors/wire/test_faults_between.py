"""Answers of what is between a program and a vendor: pages, redirects, proxies, nothing at all."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from llmdispatcher.models.errors import (
    AuthRejected,
    BadReply,
    BadRequest,
    ContextOverflow,
    DispatcherError,
    ModelNotFound,
    Overloaded,
    RateLimited,
    Unreachable,
    Unsupported,
)
from llmdispatcher.vendors.wire.exchange import Head
from llmdispatcher.vendors.wire.faults import of_answer, of_message

Row = tuple[str, int, Any, type[DispatcherError], dict[str, Any], dict[str, str]]

HTML = {"content-type": "text/html; charset=UTF-8"}
TEXT = {"content-type": "text/plain"}


def page(title: str) -> bytes:
    """Return a page as proxies make them, with all that a person does not want in a log."""
    style = "<style>body { color: red }</style>" * 50
    return (
        f"<!DOCTYPE html>\r\n<html><head>{style}<title>{title}</title></head>"
        "<body><h1>Sorry</h1><script>steal()</script></body></html>"
    ).encode()


ROWS: list[Row] = [
    ("nginx", 502, page("502 Bad Gateway"), Unreachable, {"says": "'502 Bad Gateway'"}, HTML),
    ("nginx, late", 504, page("504 Gateway Time-out"), Overloaded, {"says": "deadline"}, HTML),
    ("nginx, size", 413, page("413 Request Entity Too Large"), ContextOverflow, {}, HTML),
    ("nginx, path", 404, page("404 Not Found"), Unsupported, {"feature": "endpoint"}, HTML),
    ("a balancer", 503, page("503 Service Temporarily Unavailable"), Overloaded, {}, HTML),
    (
        "a page without its type",
        502,
        b"\r\n<html>\r\n<head><title>502 Bad Gateway</title></head>",
        Unreachable,
        {"says": "502 Bad Gateway"},
        {"content-type": "application/json"},
    ),
    ("a page without title", 500, b"<html><body>x</body></html>", BadReply, {"says": "500"}, HTML),
    (
        "a firewall",
        403,
        page("Attention Required! | Cloudflare"),
        Unreachable,
        {"says": "Attention Required! | Cloudflare", "request_id": "88aa-FRA"},
        {**HTML, "cf-ray": "88aa-FRA"},
    ),
    ("a password in between", 401, page("401 Authorization Required"), AuthRejected, {}, HTML),
    ("entities", 500, page("A &amp; B &#x1b;[31m"), BadReply, {"says": "A & B"}, HTML),
    ("a limit of the edge", 429, b"error code: 1015", RateLimited, {"says": "1015"}, TEXT),
    ("the edge", 521, b"error code: 521", Unreachable, {"status": 521}, TEXT),
    ("the edge, late", 524, b"error code: 524", Overloaded, {"status": 524}, TEXT),
    (
        "the edge, broken",
        520,
        page("Web server is returning an unknown error"),
        Unreachable,
        {},
        HTML,
    ),
    ("certificate", 526, b"", Unreachable, {"says": "certificate"}, {}),
    (
        "envoy",
        503,
        b"upstream connect error or disconnect/reset before headers. reset reason: overflow",
        Unreachable,
        {},
        TEXT,
    ),
    ("envoy, nobody", 503, b"no healthy upstream", Overloaded, {}, TEXT),
    (
        "a cloud's storage",
        403,
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Denied</Message></Error>',
        Unreachable,
        {"says": "Denied"},
        {"content-type": "application/xml"},
    ),
    (
        "a redirect",
        301,
        b"",
        Unreachable,
        {"says": "https://api.example.com/v1", "status": 301},
        {"location": "https://api.example.com/v1"},
    ),
    ("a redirect to nowhere", 302, b"", Unreachable, {"says": "without saying where"}, {}),
    ("not modified", 304, b"", Unreachable, {}, {}),
    (
        "a redirect with secrets",
        307,
        b"",
        Unreachable,
        {"says": "to https://[redacted]@b.example/v1;"},
        {"location": "https://user:hunter2@b.example/v1?key=AIzaSyabcdefgh#x"},
    ),
    ("a proxy", 407, page("Proxy Authentication Required"), Unreachable, {"says": "proxy"}, HTML),
    ("a hotel", 511, page("Welcome"), Unreachable, {"says": "login"}, HTML),
    ("nothing", 500, b"", BadReply, {"says": "500 Internal Server Error"}, {}),
    ("nothing", 503, b"", Overloaded, {"retry_after_s": 120.0}, {"retry-after": "120"}),
    ("nothing", 429, b"  \r\n", RateLimited, {}, {}),
    ("nothing", 401, b"", AuthRejected, {"says": "401 Unauthorized"}, {}),
    ("nothing", 404, b"", Unsupported, {"feature": "endpoint"}, {}),
    ("nothing", 400, b"", BadRequest, {"says": "400 Bad Request", "field": "request"}, {}),
    ("gone", 410, b"", ModelNotFound, {}, {}),
    ("locked", 423, b"", Overloaded, {}, {}),
    ("of no name", 599, b"", BadReply, {"says": "599"}, {}),
    ("of no name", 418, b"short and stout", BadRequest, {"says": "short and stout"}, TEXT),
    ("JSON of another type", 429, b'{"error": "slow"}', RateLimited, {"says": "slow"}, TEXT),
    ("JSON that says nothing", 429, b"{}", RateLimited, {}, {}),
    ("JSON that is no object", 503, b"null", Overloaded, {}, {}),
    ("JSON that is no object", 500, b'"boom"', BadReply, {"says": "boom"}, {}),
    ("JSON that is cut", 500, b'{"error": {"mess', BadReply, {}, {}),
    (
        "a stream",
        400,
        b'data: {"error": {"message": "prompt is too long: 9 tokens > 5 maximum"}}\n\n',
        ContextOverflow,
        {"needed_tokens": 9, "limit_tokens": 5},
        {"content-type": "text/event-stream"},
    ),
    (
        "several errors",
        400,
        b'{"errors": [{"message": "one"}, {"message": "two"}]}',
        BadRequest,
        {"says": "one: two"},
        {},
    ),
    ("not UTF-8", 500, b"\xff\xfe\xfa", BadReply, {}, {}),
    (
        "a mark before the JSON",
        429,
        b'\xef\xbb\xbf{"error": "slow"}',
        RateLimited,
        {"says": "slow"},
        {},
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]} {row[1]}" for row in ROWS])
def test_an_answer_of_another_stands_for_this(row: Row, judge: Any) -> None:
    """The class and the facts are those of the row."""
    judge(row)


def test_a_page_is_not_shown() -> None:
    """Of a page an error has the title."""
    error = of_answer(Head(502, HTML), page("502 Bad Gateway"))

    assert "steal" not in str(error)
    assert "color" not in str(error)


def test_what_a_vendor_repeats_of_the_request_is_not_shown() -> None:
    """Neither a prompt that a filter flagged nor a value that is refused goes into an error."""
    flagged = {"error": {"message": "flagged", "metadata": {"flagged_input": "my secret"}}}
    refused = {"detail": [{"loc": ["body", "x"], "msg": "no", "input": "my secret"}]}
    failed = {"error": {"message": "Failed", "failed_generation": "my secret"}}

    typed = {
        "error": "1 validation error\nx\n  bad [type=y, input_value='my secret', input_type=str]"
    }
    listed = {"error": {"message": "[{'loc': ('body',), 'msg': 'no', 'input': 'my secret'}]"}}

    for message in (flagged, refused, failed, typed, listed):
        assert "my secret" not in str(of_message(message))


@pytest.mark.parametrize("message", [None, {}, [], 5, "", True, [[[]]], {"error": None}])
def test_an_error_that_says_nothing_is_a_failure_of_the_vendor(message: object) -> None:
    """Nothing said is no reason to blame the request."""
    error = of_message(message)

    assert type(error) is BadReply
    assert str(error) == "the vendor failed: it gave no reason"


def test_an_answer_that_was_no_error_is_read_as_a_message() -> None:
    """A probe may have an answer of status 200 read: then what it says decides."""
    told = of_answer(Head(200, {}), b'{"error": {"code": 503}}')
    untold = of_answer(Head(200, {}), b"OK")

    assert type(told) is Overloaded
    assert told.status == 503
    assert type(untold) is BadReply


def test_an_error_travels_whole() -> None:
    """Facts that an answer gives to a request's error go through a pipe."""
    body = b'{"error": {"code": "context_length_exceeded"}}'
    error = of_answer(Head(400, {"x-request-id": "r1"}), body)

    there = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert isinstance(there, ContextOverflow)
    assert (there.status, there.request_id, there.needed_tokens) == (400, "r1", None)
    assert str(there) == str(error)
