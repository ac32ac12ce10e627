"""The parts of a way of writing replies: what stands around reasoning, calls and their arguments.

Plain values; ``families.py`` has the ways that are known, ``reader.py`` reads by them and
``callrules.py`` makes grammars of them.
"""

from __future__ import annotations

import re

import attrs

BAR = "\uff5c"
"""The wide bar that the control tokens of DeepSeek are written with."""


@attrs.frozen(kw_only=True)
class Head:
    """What stands in front of a call's arguments: a text that ``ends`` end, matching ``form``.

    ``form`` is a regular expression; its group ``name`` is the tool's, ``id`` the call's. ``begin``
    is what it begins with, if it tells a further call. ``write`` is the text for a grammar, with
    ``{name}`` and perhaps ``{id}``.
    """

    form: str
    begin: str = ""
    ends: tuple[str, ...]
    write: str


@attrs.frozen(kw_only=True)
class Tags:
    """How a call's parameters are written one by one: ``key[0]K key[1] value[0]V value[1]``.

    ``end`` stands behind the last one. ``write`` is one parameter for a grammar, with ``{key}``,
    ``{value}``, perhaps ``{string}`` (whether it is one), and ``{w}`` where white space may stand.
    """

    key: tuple[str, str]
    value: tuple[str, str]
    end: str = ""
    write: str


@attrs.frozen(kw_only=True)
class Speech:
    """One way of writing replies. Markers that a way does not have are empty."""

    name: str
    think: tuple[str, str] = ("", "")
    """What reasoning stands between."""
    wrap: tuple[str, ...] = ()
    """Markers around the text itself, which nobody is to see."""
    section: tuple[str, str] = ("", "")
    """What all calls together stand between."""
    call: tuple[str, str] = ("", "")
    """What each call stands between."""
    fences: tuple[str, ...] = ()
    """Further openings of a call, which a grammar does not offer."""
    closers: tuple[str, ...] = ()
    """What else may stand behind a call and means nothing."""
    head: Head | None = None
    """None where a call is a JSON object with the keys of ``json_keys``."""
    tags: Tags | None = None
    """None where the arguments are a JSON object."""
    json_keys: tuple[str, str] = ("name", "arguments")
    json_list: bool = False
    """Whether the calls are written as a JSON list."""
    bare: bool = False
    """Whether a call has no marker, so that only the name of a tool tells it from other JSON."""
    pythonic: bool = False
    """Whether calls are written as in Python: ``[f(a=1), g()]``."""
    quoted: bool = False
    """Whether arguments are written with a control token for a quote; see ``quoted.py``."""
    recipients: bool = False
    """Whether the prompt ends where a recipient is named: a tool, or ``all`` for text."""
    harmony: bool = False
    """Whether replies are made of messages with a channel each."""
    name_key: bool = False
    """Whether a call is ``{"name": {arguments}}``."""
    id_key: str = ""
    """Of a JSON call, the key of its id."""
    late_id: bool = False
    """Whether the id stands behind the arguments."""
    id_length: int = 0
    """Of an id, in letters and digits, where the template demands one; 0 is any."""
    calls_end_thought: bool = False
    """Whether a call may stand in the middle of reasoning, which it ends."""
    preserved: tuple[str, ...] = ()
    """Control tokens whose text must be seen to read a reply; the engine hides the others."""
    ends: tuple[str, ...] = ()
    """Text that ends the turn, beyond the tokens that the vocabulary marks."""

    @property
    def markers(self) -> tuple[str, ...]:
        """Every marker that may be a control token of its own."""
        known = (*self.think, *self.wrap, *self.section, *self.call, *self.closers, *self.fences)
        known += _HARMONY if self.harmony else ()
        if self.head:
            known += (*self.head.ends, *_INNER)
        if self.tags:
            known += (*self.tags.key, *self.tags.value, self.tags.end)
        return tuple(mark for mark in dict.fromkeys(known) if _CONTROL.fullmatch(mark))


_CONTROL = re.compile(rf"[<\[{BAR}].*[>\]{BAR}]", re.DOTALL)
"""What control tokens look like."""

_HARMONY = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|constrain|>", "<|call|>")
_INNER = (f"<{BAR}tool▁sep{BAR}>", "[CALL_ID]", "<|tool_call:name|>", f"{BAR}DSML{BAR}", '<|"|>')
"""Control tokens in the middle of what stands in front of arguments."""
