"""Turns what a model says, piece by piece, into text, reasoning and tool calls.

Pure and incremental: how the text is cut never shows in what is delivered, joined, and the work is
proportional to the text. What may be the beginning of a marker is held back; what turns out to be
no call is text. Nothing is lost: where llama.cpp refuses a whole reply for a broken call, here the
call is delivered as the model wrote it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence

from llmdispatcher.models.form import ToolSpec
from llmdispatcher.vendors.llamacpp.speech.calls import CallReader, NotACall
from llmdispatcher.vendors.llamacpp.speech.mouth import Heard, Mouth, fresh_id
from llmdispatcher.vendors.llamacpp.speech.speech import Speech
from llmdispatcher.vendors.llamacpp.speech.tape import Marks, Reading, Tape

__all__ = ["Heard", "Reader", "fresh_id"]


class Reader:
    """Reads one reply. ``feed`` and ``flush`` return what is certain now.

    ``tools`` are those that may be called; without any, calls are text. ``reasons`` says that the
    prompt ended inside a block of reasoning. ``new_id`` makes the id of a call that has none.
    """

    def __init__(
        self,
        speech: Speech,
        tools: Sequence[ToolSpec] = (),
        *,
        reasons: bool = False,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        self._speech, self._tape = speech, Tape()
        self._mouth = Mouth(new_id or (lambda: fresh_id(speech.id_length)))
        self._tools = {tool.name: tool.parameters for tool in tools}
        self._call = CallReader(speech, self._tape, self._mouth, self._tools)
        self._reading: Reading[None] | None = self._read(reasons=reasons)
        self.is_thinking = reasons
        """Whether what comes now is reasoning."""

    @property
    def calls(self) -> int:
        """How many calls have begun."""
        return self._mouth.calls

    def feed(self, text: str) -> Heard:
        """Take more of the reply."""
        if not text:
            return Heard()
        self._tape.feed(text)
        return self._go_on()

    def flush(self) -> Heard:
        """Take the end of the reply: nothing is held back any more."""
        self._tape.ended = True
        return self._go_on()

    def _go_on(self) -> Heard:
        if self._reading is not None:
            try:
                next(self._reading)
            except StopIteration:
                self._reading = None
        return self._mouth.heard()

    def _read(self, *, reasons: bool) -> Reading[None]:
        if self._speech.harmony:
            yield from self._channels(reasons=reasons)
        else:
            yield from self._open(reasons=reasons)
            yield from self._talk()
        self._mouth.finish()

    # -- reasoning, then text and calls --------------------------------------------------------

    def _open(self, *, reasons: bool) -> Reading[None]:
        """Read the reasoning that a reply begins with, if it does."""
        opener, closer = self._speech.think
        self.is_thinking = reasons and bool(opener)
        if not opener and (reasons or self._speech.recipients or not self._tools):
            return
        if not reasons:
            space = yield from self._tape.space()
            if not opener or not (yield from self._tape.next_is(opener)):
                self._mouth.hold(space)  # in front of a call it means nothing
                return
        self.is_thinking = True
        openers = self._openers() if self._speech.calls_end_thought else ()
        mark = yield from self._tape.until(Marks((closer, *openers)), self._mouth.think)
        self.is_thinking = False
        self._mouth.end_thought()
        if mark != closer:
            self._tape.back(mark)

    def _openers(self) -> tuple[str, ...]:
        """Return what a call, or all of them, begin with."""
        speech = self._speech
        if not self._tools:
            return ()
        openers = (speech.section[0], speech.call[0], *speech.fences)
        if speech.tags and speech.tags.key[0] == "<parameter=":
            openers += tuple(f"<function={name}>" for name in self._tools)
        return tuple(mark for mark in openers if mark)

    def _talk(self) -> Reading[None]:
        """Read text and calls up to the end."""
        speech, mouth = self._speech, self._mouth
        openers = self._openers()
        closers = {speech.section[1], speech.call[1], *speech.closers} - {""}
        wraps = speech.wrap
        marks = Marks((*openers, *(closers if openers else ()), *wraps))
        if speech.recipients:
            yield from self._recipient("")
        while True:
            piece, mark = yield from self._tape.some(marks)
            mouth.say(piece)
            if mark in openers:
                yield from self._attempt(mark)
            elif mark in closers and mouth.closing:
                mouth.end_calls()
            elif mark not in wraps:
                mouth.say(mark)
            if not piece and not mark:
                return

    def _attempt(self, mark: str) -> Reading[None]:
        """Read a call; what turns out to be none is text."""
        if mark == self._speech.section[0] and self._speech.call[0]:
            self._mouth.hold(mark)  # the marker of the first call comes next
            return
        if self._speech.recipients:
            yield from self._recipient(mark)
            return
        self._tape.record(mark)
        with contextlib.suppress(NotACall):
            if mark.startswith("<function=") and mark.endswith(">"):
                yield from self._call.read_tags(mark[len("<function=") : -1])
            elif mark.endswith("{"):
                yield from self._call.read_behind_brace()
            else:
                yield from self._call.read()
        if self._tape.recording:  # no call has begun since
            self._mouth.say(self._tape.recorded())

    def _recipient(self, mark: str) -> Reading[None]:
        """Read who is spoken to, and what is said if that is a tool."""
        found: list[str] = []
        end = yield from self._tape.until(Marks(("\n", ">>>")), found.append)
        name = "".join(found).strip()
        if end == "\n" and name in self._tools:
            yield from self._call.read_json(name)
        elif end != "\n" or name != "all":
            self._tape.back(end if end == ">>>" else "")
            self._mouth.say(mark + "".join(found) + end.strip(">"))

    # -- messages with channels ----------------------------------------------------------------

    def _channels(self, *, reasons: bool) -> Reading[None]:
        """Read harmony messages: each has a header with a channel and perhaps a recipient."""
        header = "<|channel|>analysis" if reasons else None
        while header is not None or (yield from self._tape.peek()):
            if header is None:
                raw: list[str] = []
                mark = yield from self._tape.until(_HEADER, raw.append)
                if mark != "<|message|>":
                    self._stray("".join(raw))
                    continue
                header = "".join(raw)
            yield from self._message(header)
            header = None

    def _stray(self, text: str) -> None:
        """Say what stands where a header is expected and is none."""
        if not _HEAD.fullmatch(text):
            self._mouth.say(text)

    def _message(self, header: str) -> Reading[None]:
        """Read the body of a message."""
        called = re.search(r"to=functions\.([^\s<]+)", header)
        if called and self._tools:
            yield from self._call.read_json(called[1])
            put: Callable[[str], None] = _drop
        elif "<|channel|>analysis" in header:
            put = self._mouth.think
        else:
            put = self._mouth.say
        self.is_thinking = put == self._mouth.think
        yield from self._tape.until(_END, put)
        if self.is_thinking:
            self._mouth.end_thought()
        self.is_thinking = False


def _drop(_: str) -> None:
    """Behind the arguments of a call there is nothing."""


_HEAD = re.compile(r"(assistant)?( to=[^\s<]*)?(<\|channel\|>.*)?", re.DOTALL)
"""What stands in front of a message, whole or cut short, and is no text."""
_HEADER = Marks(("<|message|>", "<|start|>", "<|end|>", "<|return|>", "<|call|>"))
_END = Marks(("<|end|>", "<|return|>", "<|call|>", "<|start|>"))
