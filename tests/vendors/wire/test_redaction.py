"""Keys, terminal codes and length: what may not come out of a stranger's text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher.vendors.wire.redaction import HIDDEN, SHOWN_CHARS, blotted, cleaned

SECRETS = [
    "sk-proj-abcDEF123456_ghiJKL-789mnoPQR",
    "sk-ant-api03-AbCdEfGhIjKl0123456789-_xyz",
    "sk-or-v1-0123456789abcdef0123456789abcdef",
    "sk-abcde************************wxyz",
    "gsk_AbCdEf0123456789AbCdEf0123456789",
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789",
    "AIzaSyA0123456789abcdefghijklmnopqrstuv",
    "xai-0123456789abcdefABCDEF",
    "tgp_v1_0123456789abcdefABCDEF",
    "nvapi-0123456789abcdefABCDEF",
    "ghp_0123456789abcdefABCDEF012345",
    "AKIAIOSFODNN7EXAMPLE",
    "ya29.a0AfH6SMBx-0123456789",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "said",
    ["Incorrect API key provided: {}.", "({})", '{{"authorization":"Bearer {}"}}', "x {} y", "{}"],
)
def test_keys_are_known_by_their_looks(secret: str, said: str) -> None:
    """A key of a vendor does not get through, wherever it stands."""
    shown = cleaned(said.format(secret))

    assert HIDDEN in shown
    assert secret not in shown
    assert secret[6:20] not in shown


@pytest.mark.parametrize(
    "said",
    [
        "api key: 0123456789abcdef0123456789abcdef",
        "Invalid API key provided: 3f9a8b7c6d5e4f3a2b1c",
        "api_key=QWxhZGRpbjpvcGVuIHNlc2FtZQ0123==",
        '"token": "QWxhZGRpbjpvcGVuc2VzYW1l01"',
        "Authorization: Basic QWxhZGRpbjpvcGVuU2VzYW1lMQ==",
        "authorization 'QWxhZGRpbjpvcGVuU2VzYW1lMQ'",
        "secret QWxhZGRpbjpvcGVuU2VzYW1lMQ",
        "password: hunter2hunter2hunter2",
        "Key Hash (Token) =88dc28d0f030c55ed4ab77ed8faf098196cb1c05df",
        "https://user:pass0word@proxy.example:8080/",
        "https://api.example/v1?alt=sse&key=abc123&x=1",
    ],
)
def test_what_is_named_a_key_is_none_of_ours_to_show(said: str) -> None:
    """A long word behind the word key or its like is hidden."""
    shown = cleaned(said)

    assert HIDDEN in shown
    for part in ("QWxhZGRp", "0123456789abc", "3f9a8b7c", "hunter2", "88dc28d0", "pass0word"):
        assert part not in shown
    assert "abc123" not in shown


@pytest.mark.parametrize(
    "said",
    [
        "The model `meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8` does not exist",
        "maximum context length is 128000 tokens. However, you requested 150000 tokens",
        "The token limit for gpt-4-1106-preview-128k was reached",
        "Request id req_011CSHoEeqs5C35K2UUqR7Fy",
        "You can find your API key at https://platform.openai.com/account/api-keys",
        "tokens per minute (TPM): Limit 6000, Used 5034, Requested 1443",
        "Please set an API key, as the documentation at docs.example says",
        "risk-averse task-oriented disk-based",
    ],
)
def test_what_is_no_key_stays(said: str) -> None:
    """An error must still name the model and the numbers."""
    assert cleaned(said) == said


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mred", "red"),
        ("a\r\n\tb\x0b\x0cc\u2028d\x85e", "a b c d e"),
        ("a\x00b\x07c\x7fd", "abcd"),
        ("left\u202etfel", "lefttfel"),
        ("\ufeffa\u200bb", "ab"),
        ("lone \ud800 half", "lone \ufffd half"),
        ("s\x1b[0mk-abcdef0123456789", HIDDEN),
        ("  ", ""),
    ],
)
def test_a_text_is_one_line_that_a_terminal_does_not_obey(said: str, shown: str) -> None:
    """Escapes and unseen characters go, white space becomes one space, and then keys are sought."""
    assert cleaned(said) == shown


def test_a_text_is_cut() -> None:
    """A long text ends in an ellipsis, and the cut does not let half a key through."""
    secret = "sk-" + "a1b2" * 100
    for before in range(SHOWN_CHARS * 4 - 40, SHOWN_CHARS * 4 + 60):
        shown = cleaned("\x1b[0m" * (before // 4) + " " + secret)
        assert "a1b2a1b2" not in shown
    assert len(cleaned("word " * 1000)) <= SHOWN_CHARS
    assert cleaned("word " * 1000).endswith("…")


@given(st.text(), st.integers(10, 600))
def test_whatever_comes_is_printable_short_and_stable(text: str, limit_chars: int) -> None:
    """What comes out fits, can be printed and encoded, and is clean already."""
    shown = cleaned(text, limit_chars)

    assert len(shown) <= limit_chars
    assert not any(char in shown for char in "\x1b\x00\n\r\x9b\u202e")
    shown.encode()
    assert cleaned(shown, limit_chars) == shown


@given(st.text(max_size=50), st.sampled_from(SECRETS), st.text(max_size=50))
def test_no_key_gets_through_whatever_is_around_it(before: str, secret: str, after: str) -> None:
    """A space on both sides is all that a key needs to be seen."""
    assert secret[4:] not in cleaned(f"{before} {secret} {after}")


@given(st.binary(), st.text(min_size=4, max_size=40))
def test_a_known_secret_is_blotted_out(data: bytes, secret: str) -> None:
    """Whatever a key looks like: what was sent is not shown, plain or in JSON."""
    encoded = secret.encode(errors="surrogatepass")

    assert encoded not in blotted(data + encoded + data, [secret]) or encoded in HIDDEN.encode()


def test_what_is_too_short_is_no_secret() -> None:
    """An empty key, or a letter, does not turn every answer into stars."""
    assert blotted(b"a body", ["", "a"]) == b"a body"
    assert blotted(b'{"k": "a\\"bcd"}', ['a"bcd']) == b'{"k": "[redacted]"}'


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "sk-",
        "key ",
        "key=",
        "Bearer ",
        "\x1b[",
        "\x1b]",
        "?key=",
        "://a",
        "token a ",
        "=",
        "é ",
    ],
)
def test_time_goes_with_length(unit: str) -> None:
    """No text makes it slow: it looks at a bounded part."""
    text = unit * (4_000_000 // len(unit))
    begun = time.process_time()

    cleaned(text)
    cleaned(text, 4000)

    assert time.process_time() - begun < 2
