"""What an answer of the responses endpoint is put together from. Pure.

An answer tells everything up to three times: in pieces, where a part or an item is done, and at the
end as a whole. Servers leave any of these out, so what comes whole is held against what was given
on in pieces, and only the rest of it is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from llmdispatcher.models.errors import BadReply
from llmdispatcher.models.reply import CallDelta, Usage
from llmdispatcher.vendors.wire.reading import fields, items, shown, tally, words

MAX_CALLS = 1024
"""Of one reply: each is looked for among all."""


@attrs.define
class Strand:
    """How much of something was given on, and where its last part and its last item began."""

    given: int = 0
    _part: int = 0
    _item: int = 0

    def more(self, size: int) -> None:
        """Take a piece."""
        self.given += size

    def part_done(self, size: int) -> int:
        """Take a part as a whole; return where in it begins what is new."""
        first, self._part = self._new(size, self._part)
        return first

    def item_done(self, size: int) -> int:
        """Take an item as a whole; return where in it begins what is new."""
        first, self._item = self._new(size, self._item)
        self._part = self._item
        return first

    def _new(self, size: int, start: int) -> tuple[int, int]:
        first = min(size, max(0, self.given - start))
        self.given += size - first
        return first, start + size


class Told(Strand):
    """A strand of which only pieces are taken: no part that comes whole has anything new.

    Where a piece may be missing, the rest of a part cannot be told by how much of it was given.
    """

    def _new(self, size: int, start: int) -> tuple[int, int]:
        return size, start + size


class Paragraphs:
    """Texts that are told in parts of which each is a paragraph, with nothing between them.

    A part that came in pieces is not looked at again.
    """

    def __init__(self, between: str = "") -> None:
        self._between = between
        self._place: tuple[object, ...] = ()
        self._begun_parts = self._done_items = 0
        self._given = False
        """Whether anything of the item that is told now was given on."""

    def more(self, text: str, place: tuple[object, ...]) -> str:
        """Take a piece of the part at a place."""
        return self._begun(text, place)

    def part_done(self, text: str, place: tuple[object, ...]) -> str:
        """Take a part as a whole; return what is new of it."""
        return "" if self._begun_parts and place == self._place else self._begun(text, place)

    def item_done(self, texts: list[str]) -> str:
        """Take an item as a whole; return what is new of it."""
        self._done_items += 1
        was_given, self._given = self._given, False
        if was_given:
            return ""
        told = "".join(
            self._begun(text, ("item", self._done_items, part)) for part, text in enumerate(texts)
        )
        self._given = False
        return told

    def _begun(self, text: str, place: tuple[object, ...]) -> str:
        if not text:
            return ""
        first = place != self._place or not self._begun_parts
        between = self._between if first and self._begun_parts else ""
        self._begun_parts += first
        self._place, self._given = place, True
        return between + text


@attrs.define
class _Call:
    """A call of a tool, as far as it was told."""

    id: str
    item_id: str
    place: int | None
    """Of its item in the answer, as the vendor counts."""
    given: int = 0
    """Of its arguments."""
    is_done: bool = False


class Calls:
    """The calls of one answer, counted in the order in which they came."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def __len__(self) -> int:
        return len(self._calls)

    def begun(self, item: Mapping[str, Any], place: object) -> CallDelta:
        """Take a new call. Raises BadReply for one that cannot be."""
        index, name = len(self._calls), words(item.get("name"), "the name of a tool")
        if not name:
            raise BadReply(f"the vendor sent a call of no tool: {shown(dict(item))}")
        if index == MAX_CALLS:
            raise BadReply(f"the vendor sent more than {MAX_CALLS} calls in one reply")
        arguments = words(item.get("arguments"), "arguments")
        call_id = words(item.get("call_id"), "the id of a call") or f"call_{index}"
        item_id = words(item.get("id"), "an id")
        self._calls.append(_Call(call_id, item_id, _place(place), len(arguments)))
        return CallDelta(index, call_id, name, arguments)

    def more(self, message: Mapping[str, Any]) -> CallDelta:
        """Take a piece of a call's arguments. Raises BadReply for one that belongs to none."""
        index = self._found(message)
        if index is None:
            raise BadReply("the vendor sent arguments of a call that it told nothing of")
        piece = words(message.get("delta"), "arguments")
        self._calls[index].given += len(piece)
        return CallDelta(index, arguments=piece)

    def arguments_done(self, message: Mapping[str, Any]) -> list[CallDelta]:
        """Take a call's arguments as a whole; return what is new of them."""
        index = self._found(message)
        return [] if index is None else self._rest(index, message)

    def item_done(self, item: Mapping[str, Any], place: object) -> list[CallDelta]:
        """Take a call as a whole; return what is new of it."""
        return self._whole(item, place, self._found({**item, "output_index": place}))

    def again(self, item: Mapping[str, Any], index: int) -> list[CallDelta]:
        """Take the call of a place among the calls once more; return what is new of it."""
        return self._whole(item, None, index if index < len(self._calls) else None)

    def _whole(self, item: Mapping[str, Any], place: object, index: int | None) -> list[CallDelta]:
        told: list[CallDelta] = []
        if index is None:
            index = len(self._calls)
            told.append(self.begun(item, place))
        told += self._rest(index, item)
        call = self._calls[index]
        if not call.given:
            call.given = 2
            told.append(CallDelta(index, arguments="{}"))
        call.is_done = True
        return told

    def _rest(self, index: int, told: Mapping[str, Any]) -> list[CallDelta]:
        call, whole = self._calls[index], words(told.get("arguments"), "arguments")
        rest = "" if call.is_done else whole[call.given :]
        call.given += len(rest)
        return [CallDelta(index, arguments=rest)] if rest else []

    def _found(self, told: Mapping[str, Any]) -> int | None:
        """Find a call by its names, else by its place, else the last one that is not done."""
        call_id, item_id = told.get("call_id"), told.get("item_id", told.get("id"))
        place = _place(told.get("output_index"))
        for index, call in enumerate(self._calls):
            if call.id == call_id or (item_id and call.item_id == item_id):
                return index
        for index, call in enumerate(self._calls):
            if place is not None and call.place == place:
                return index
        last = len(self._calls) - 1
        if call_id or last < 0 or self._calls[last].is_done:
            return None
        return last


def _place(told: object) -> int | None:
    return told if isinstance(told, int) else None


def content_of(item: Mapping[str, Any]) -> tuple[str, list[Any], bool]:
    """Return the text of a message, its tokens as they were told, and whether it is a refusal."""
    texts, tokens, was_refused = [], [], False
    for part in map(fields, items(item.get("content"))):
        if part.get("type") == "output_text":
            texts.append(words(part.get("text")))
            tokens += items(part.get("logprobs"))
        elif part.get("type") == "refusal":
            was_refused = True
            texts.append(words(part.get("refusal")))
    return "".join(texts), tokens, was_refused


def only_text_of(response: Mapping[str, Any]) -> str:
    """Return the text of an answer that is one message without a label; empty for any other."""
    text, messages = "", 0
    for item in map(fields, items(response.get("output"))):
        match item.get("type"):
            case "message":
                text, messages = content_of(item)[0], messages + 1
                messages += isinstance(item.get("phase"), str)
            case "reasoning":
                messages += any(map(any, thoughts_of(item)))
            case "function_call":
                return ""
    return text if messages == 1 else ""


def thoughts_of(item: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the texts of an item of thoughts: those of the thoughts, and those of the summary."""
    content, summary = items(item.get("content")), items(item.get("summary"))
    return (
        [words(fields(part).get("text")) for part in content],
        [words(fields(part).get("text")) for part in summary],
    )


def usage_of(told: object) -> Usage | None:
    """Read the tokens of an answer; None where it tells none."""
    usage = fields(told)
    if "input_tokens" not in usage and "output_tokens" not in usage:
        return None
    prompt, completion = tally(usage.get("input_tokens")), tally(usage.get("output_tokens"))
    read, made = fields(usage.get("input_tokens_details")), usage.get("output_tokens_details")
    cached = min(prompt, tally(read.get("cached_tokens")))
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=min(prompt - cached, tally(read.get("cache_write_tokens"))),
        reasoning_tokens=min(completion, tally(fields(made).get("reasoning_tokens"))),
    )
