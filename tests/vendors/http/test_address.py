"""Addresses: what is meant is taken, what is risky is refused, and nobody's password is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher.models.errors import BadRequest
from llmdispatcher.vendors.http.address import (
    address,
    is_inner,
    is_loopback,
    is_under,
    shown,
)


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("https://api.test", "https://api.test/v1"),
        ("https://api.test/", "https://api.test/v1"),
        ("https://api.test//", "https://api.test/v1"),
        (" https://api.test/v1/ ", "https://api.test/v1"),
        ("HTTPS://API.Test/V1", "https://api.test/V1"),
        ("https://api.test.:443/openai/v1", "https://api.test:443/openai/v1"),
        ("https://api.test/v1/chat/completions", "https://api.test/v1"),
        ("https://api.test/chat/completions", "https://api.test/v1"),
        ("https://api.test/v1/models/", "https://api.test/v1"),
        ("http://10.0.0.1:11434/api/chat", "http://10.0.0.1:11434/v1"),
        ("localhost:1234", "http://localhost:1234/v1"),
        ("127.0.0.1:1234/v1", "http://127.0.0.1:1234/v1"),
        ("[::1]:1234", "http://[::1]:1234/v1"),
        ("http://[::1]:1234", "http://[::1]:1234/v1"),
        ("http://my_host-1:1", "http://my_host-1:1/v1"),
    ],
)
def test_an_address_is_taken_for_what_it_means(given: str, base: str) -> None:
    """With an endpoint that was copied along, or without a path, or without a scheme at home."""
    assert address(given, "/v1").base == base


@pytest.mark.parametrize(
    "given",
    [
        "",
        " ",
        None,
        5,
        b"https://x",
        "api.test",
        "api.test:443",
        "ftp://api.test",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "https:///v1",
        "https://?x",
        "https://api.test:99999",
        "https://api.test:0",
        "https://api.test:x",
        "https://[::1",
        "[::1",
        "https://[nonsense]",
        "https://[fe80::1%25eth0]",
        "https://a b.test",
        "https://api\n.test",
        "https://api.test/\tx",
        "https://api.test/v1\r\nhost: x",
        "https://dömäin.test",
        "https://evil.test\\.api.test",
        "https://evil.test\\@api.test",
        "https://user:geheim@api.test",
        "https://geheim@api.test",
        "https://api.test?key=geheim",
        "https://api.test/#x",
        "https://api.test/?",
        "https://-api.test",
        "https://api..test",
        "https://.test",
        "http://2130706433",
        "http://127.1",
        "http://0x7f000001",
        "http://0x7f.1",
        "http://1.2.3.4.5",
        "http://256.1.1.1",
        f"https://{'a' * 254}",
    ],
)
def test_what_is_no_address_is_refused(given: object) -> None:
    """What two programs might read in two ways is none; a password in it is not repeated."""
    with pytest.raises(BadRequest, match="base_url") as caught:
        address(given)
    assert "geheim" not in str(caught.value)
    assert "geheim" not in repr(caught.value.value)


@pytest.mark.parametrize(
    ("host", "loopback", "inner"),
    [
        ("localhost", True, True),
        ("LOCALHOST", True, True),
        ("a.localhost", True, True),
        ("127.0.0.1", True, True),
        ("127.9.9.9", True, True),
        ("0.0.0.0", True, True),  # noqa: S104 - nobody binds to it here
        ("::1", True, True),
        ("::", True, True),
        ("::ffff:127.0.0.1", True, True),
        ("10.1.2.3", False, True),
        ("192.168.0.1", False, True),
        ("172.16.0.1", False, True),
        ("169.254.1.1", False, True),
        ("fd00::1", False, True),
        ("fe80::1", False, True),
        ("::ffff:10.0.0.1", False, True),
        ("gpu-box", False, True),
        ("gpu.local", False, True),
        ("llm.svc.internal", False, True),
        ("host.home.arpa", False, True),
        ("8.8.8.8", False, False),
        ("::ffff:8.8.8.8", False, False),
        ("2001:4860:4860::8888", False, False),
        ("172.32.0.1", False, False),
        ("api.openai.com", False, False),
        ("localhost.evil.com", False, False),
        ("local.evil.com", False, False),
        ("notlocalhost.com", False, False),
        ("internal.com", False, False),
        ("127.0.0.1.evil.com", False, False),
    ],
)
def test_who_is_of_this_machine_and_of_this_network(
    host: str, *, loopback: bool, inner: bool
) -> None:
    """By the address that is connected to, whatever clothes it wears."""
    assert is_loopback(host) is loopback
    assert is_inner(host) is inner


@pytest.mark.parametrize(
    ("host", "domains", "expected"),
    [
        ("api.openai.com", ("openai.com",), True),
        ("OpenAI.com", ("openai.com",), True),
        ("evilopenai.com", ("openai.com",), False),
        ("openai.com.evil.com", ("openai.com",), False),
        ("anything", ("",), False),
        ("anything", (), False),
    ],
)
def test_domains_hold_what_is_below_them(
    host: str, domains: tuple[str, ...], *, expected: bool
) -> None:
    """At a dot, and nowhere else."""
    assert is_under(host, domains) is expected


@given(st.text(max_size=40) | st.from_regex(r"(https?://)?[a-z0-9.:@/?#\[\]%-]{0,30}"))
def test_any_text_is_an_address_or_a_bad_request(text: str) -> None:
    """Nothing else is raised, and what is taken is sound."""
    try:
        found = address(text, "/v1")
    except BadRequest:
        return
    assert found.base.startswith(("http://", "https://"))
    assert found.base.isascii()
    assert "@" not in found.root
    assert address(found.base).root == found.root


def test_passwords_are_not_shown() -> None:
    """Whatever they are made of."""
    assert shown("https://user:p@ss@host/x") == "https://[redacted]@host/x"
    assert shown(None) is None
