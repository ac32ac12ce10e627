"""Callers of ``llama-server`` who use the SDK of OpenAI, in one process. Started by ``engine.py``.

    python bench/sdk_clients.py PORT CALLERS

This is what a Python program does that has a server beside it: one client object, a thread for each
request, replies streamed. Jobs and results are those of ``crowd.py``. It runs in an environment
that has nothing but ``openai``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from burst import Track
from crowd import LOOPBACK, Threads, serve
from harness import ANSWER_S, version

SDK = "openai"
"""The distribution, and its module."""


class SdkClients(Threads):
    """``openai.OpenAI``, shared by all threads, which keeps connections open between requests."""

    def __init__(self, port: int, callers: int) -> None:
        super().__init__(callers)
        openai: Any = import_module(SDK)
        self._client: Any = openai.OpenAI(
            base_url=f"http://{LOOPBACK}:{port}/v1",
            api_key="none",
            timeout=ANSWER_S,
            max_retries=0,  # a failure is to be seen
            http_client=openai.DefaultHttpxClient(trust_env=False),  # no proxy on the way
        )

    def reply(self, track: Track, prompt: str, tokens: int) -> None:
        """See ``Threads``."""
        made = 0
        with self._client.completions.create(
            model="the one that is loaded",
            prompt=prompt,
            max_tokens=tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"cache_prompt": False, "ignore_eos": True},
        ) as chunks:
            for chunk in chunks:
                for choice in chunk.choices:  # the chunk with the usage has none
                    track.take(choice.text)
                if chunk.usage is not None:
                    made = chunk.usage.completion_tokens
        track.end(made)

    def close(self) -> None:
        """See ``Threads``."""
        self._client.close()
        super().close()


def main() -> None:
    """Connect and serve."""
    port, callers = map(int, sys.argv[1:])
    clients = SdkClients(port, callers)
    clients.run(["warm"] * callers, 2)
    serve(clients, {SDK: version(SDK)})


if __name__ == "__main__":
    main()
