"""A question on the command line: how it is put together, and its answer as JSON."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.errors import RequestError
from llmdispatcher.models.message import system, user
from llmdispatcher.models.request import Request

if TYPE_CHECKING:
    from llmdispatcher.models.reply import Reply
    from llmdispatcher.models.request import Prompt
    from llmdispatcher.terminal import Terminal


def question(args: argparse.Namespace, terminal: Terminal) -> str:
    """Put the question together from the command line and stdin. Raises RequestError."""
    words = " ".join(args.prompt)
    if terminal.reads_tty and words != "-":
        piped = ""
    else:
        words, piped = words.removeprefix("-") if words == "-" else words, terminal.read_all()
    if not args.raw:
        piped = piped.rstrip("\r\n")
    try:
        words.encode()
    except UnicodeEncodeError:
        raise RequestError(
            "the question is not text in this terminal's encoding; set LANG=C.UTF-8"
        ) from None
    asked = "\n\n".join(part for part in (words, piped) if part)
    if not asked.strip():
        raise RequestError(
            'there is no question: llmdispatcher ask "your question", or pipe text into it'
        )
    return asked


def prompt(args: argparse.Namespace, asked: str) -> Prompt:
    """Make a prompt of it. Raises RequestError for options that contradict each other."""
    if args.raw:
        if args.system is not None:
            raise RequestError("--raw sends the prompt alone: leave out --system, or --raw")
        return Request(prompt=asked)
    return [*([] if args.system is None else [system(args.system)]), user(asked)]


def as_json(reply: Reply) -> str:
    """Write a reply as JSON, all in ASCII, which no locale and no terminal can spoil."""
    cost = reply.cost_usd
    return json.dumps(
        {
            "text": reply.text,
            "finish_reason": reply.finish_reason,
            "usage": attrs.asdict(reply.usage),
            "vendor": reply.vendor,
            "model": reply.model,
            "cost_usd": None if cost is None else f"{cost:f}",
            "latency_s": reply.latency_s,
            "first_token_s": reply.first_token_s,
            "warnings": reply.warnings,
        }
    )
