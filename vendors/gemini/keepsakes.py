"""What Gemini wants back with a turn: signatures of its thoughts, on the very parts they came with.

A signature belongs to a call, or to a stretch of the text. What has no counterpart in a message (a
signed thought, code that Gemini ran, a call of a tool of its own) is kept whole, with its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from llmdispatcher.models.errors import BadReply, BadRequest
from llmdispatcher.models.message import Keepsake

DIALECT = "gemini"

UNSIGNED = "skip_thought_signature_validator"
"""Stands for the signature of a call that Gemini never made: one of another vendor's model. From
Google's page on thought signatures, under "transferring"."""

Part = dict[str, Any]


def of_call(call_id: str, signature: str) -> Keepsake:
    """Keep the signature of a call."""
    return _keepsake({"call": call_id, "signature": signature})


def of_text(start: int, end: int, signature: str) -> Keepsake:
    """Keep the signature of a stretch of the turn's text, counted in characters."""
    return _keepsake({"text": [start, end], "signature": signature})


def of_part(part: Mapping[str, Any], at: int) -> Keepsake:
    """Keep a whole part that stood before this character of the turn's text."""
    return _keepsake({"part": part, "at": at})


def _keepsake(value: Mapping[str, Any]) -> Keepsake:
    """Make a keepsake. Raises BadReply for what is no JSON that could be sent back."""
    try:
        return Keepsake(DIALECT, json.dumps(value, separators=(",", ":"), allow_nan=False))
    except (ValueError, RecursionError):
        raise BadReply("the vendor sent a part of a turn that cannot be kept") from None


@attrs.frozen
class Mark:
    """A part and where it stood: the characters of the text from ``start`` to ``end``."""

    start: int
    end: int
    part: Part
    """The whole part, or of a stretch of the text what is beside that."""


@attrs.frozen
class Kept:
    """What was kept of one turn."""

    calls: dict[str, str] = attrs.field(factory=dict)
    """Signatures by the ids of the calls."""
    stretches: list[Mark] = attrs.field(factory=list)
    parts: list[Mark] = attrs.field(factory=list)

    def laid(self, text: str) -> list[Part]:
        """Return the parts that a turn's text was.

        What no longer fits is left out: the caller has changed the text, and it is the caller's.
        """
        signed = [
            Mark(mark.start, mark.end, {"text": text[mark.start : mark.end], **mark.part})
            for mark in self.stretches
        ]
        parts: list[Part] = []
        done = 0
        for mark in sorted([*self.parts, *signed], key=lambda mark: mark.start):
            if not done <= mark.start <= mark.end <= len(text):
                continue
            if mark.start > done:
                parts.append({"text": text[done : mark.start]})
            parts.append(mark.part)
            done = mark.end
        if done < len(text):
            parts.append({"text": text[done:]})
        return parts


def kept(keepsakes: Iterable[Keepsake]) -> Kept:
    """Read the keepsakes of a turn; those of other dialects are none of ours.

    Raises BadRequest for what was not made here.
    """
    found = Kept()
    for keepsake in keepsakes:
        if keepsake.dialect != DIALECT:
            continue
        try:
            value = json.loads(keepsake.data)
        except (ValueError, RecursionError):
            value = None
        match value:
            case {"call": str(call), "signature": str(signature)}:
                found.calls[call] = signature
            case {"text": [int(start), int(end)], "signature": str(signature)} if start >= 0:
                found.stretches.append(Mark(start, end, {"thoughtSignature": signature}))
            case {"part": dict(part), "at": int(at)} if at >= 0:
                found.parts.append(Mark(at, at, part))
            case _:
                raise BadRequest("keepsakes", keepsake.data, "those of the reply, as they came")
    return found
