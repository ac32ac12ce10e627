"""A server that speaks as Gemini does, and Google's own SDK at it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from asking_gemini import KEY
from google import genai
from google.genai import types
from loopback import Answer, Got, Loopback
from speaking_gemini import as_json, spoken


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A server that says "Hi" until told otherwise."""

    def hi(got: Got) -> Answer:
        streams = "stream" in got.path
        told = spoken(text="Hi", streams=streams)
        return Answer.sse(told) if streams else as_json(told[0])

    with Loopback(hi) as server:
        yield server


@pytest.fixture
def client(server: Loopback) -> Iterator[genai.Client]:
    """The SDK, at this server."""
    options = types.HttpOptions(base_url=server.url, api_version="v1beta")
    with genai.Client(api_key=KEY, http_options=options) as client:
        yield client
