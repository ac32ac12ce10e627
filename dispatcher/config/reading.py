"""Reads YAML into nodes: safely, within bounds, with the place of each value, all problems noted.

Nothing is ever constructed from a tag. Anchors and merge keys work, and cannot make a small file a
large one: the number of values and how deep they lie are bounded.
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import attrs
import yaml

from llmdispatcher.config.node import Node, Notes
from llmdispatcher.config.scalars import meaning
from llmdispatcher.config.secrecy import is_key

MAX_BYTES = 256 * 1024
"""Of a file; ten thousand lines. What is larger is something else."""

MAX_VALUES = 20_000
"""Of a file, those that anchors repeat counted each time."""

MAX_DEPTH = 24
"""Of lists and mappings in each other; eight are ever needed."""

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_file(path: Path, notes: Notes) -> Node | None:
    """Read a file; None where nothing of it can be used, which is noted."""
    try:
        if path.is_dir():
            notes.whole("is a folder; name the file in it")
            return None
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        notes.whole(f"cannot be read: {error.strerror}")
        return None
    return read(data, notes)


def read(data: bytes, notes: Notes) -> Node | None:
    """Read what stands in a file; None where nothing of it can be used, which is noted."""
    text = _decoded(data, notes)
    if text is None:
        return None
    try:
        made = _Loader(text).get_single_node()
    except _Refused as refused:
        notes.whole(str(refused), refused.line, refused.column)
        return None
    except yaml.YAMLError as error:
        _tell(error, text, notes)
        return None
    if made is None:
        notes.whole("is empty: name vendors in it, or remove it to use what is found")
        return None
    if not isinstance(made, yaml.MappingNode):
        line, column = _place(made)
        kind = "a list" if isinstance(made, yaml.SequenceNode) else "a text"
        notes.whole(f"must be a mapping of keys, such as vendors:, not {kind}", line, column)
        return None
    return _Converter(notes).node(made, "", None, 0)


def _decoded(data: bytes, notes: Notes) -> str | None:
    if len(data) > MAX_BYTES:
        notes.whole(f"has more than {MAX_BYTES // 1024} KiB, which no configuration needs")
        return None
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            notes.whole(f"is {name} text: save it as UTF-8")
            return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before) - (before.rfind(b"\n") + 1) + 1
        notes.whole(f"is not UTF-8 text (byte 0x{data[error.start]:02x})", line, column)
        return None


def _tell(error: yaml.YAMLError, text: str, notes: Notes) -> None:
    """Note what is wrong with the form of a file."""
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        code = error.character if isinstance(error.character, int) else ord(error.character)
        notes.whole(f"has the character U+{code:04X}, which YAML does not allow", line, column)
        return
    told = [str(part) for part in (getattr(error, "context", ""), getattr(error, "problem", ""))]
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    message = "is no YAML: " + ", ".join(part for part in told if part and part != "None")
    if "'\\t'" in message:
        message = "a tab stands where YAML takes blanks only"
    if "expected a single document" in message:
        message = "holds several documents; a configuration is one"
    if mark is None:
        notes.whole(message)
    else:
        notes.whole(message, mark.line + 1, mark.column + 1)


class _Refused(Exception):
    """Something that YAML allows, and this does not."""

    def __init__(self, message: str, mark: Any) -> None:  # noqa: ANN401 - PyYAML has no type for it
        super().__init__(message)
        self.line, self.column = mark.line + 1, mark.column + 1


class _Loader(yaml.BaseLoader):
    """Composes nodes and constructs nothing; every scalar is text."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node, unless it has a tag or lies too deep."""
        event = self.peek_event()  # type: ignore[no-untyped-call] # so are its stubs
        if getattr(event, "tag", None) is not None:
            message = "a tag (!…) has no use here: leave it out"
            raise _Refused(message, event.start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Refused(f"lies more than {MAX_DEPTH} levels deep", event.start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Converter:
    """Turns what was composed into nodes."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._count = 0

    def node(self, made: yaml.Node, path: str, key: yaml.Node | None, depth: int) -> Node | None:
        """Convert one node and all within it; None where there is too much of it."""
        line, column = _place(made)
        node = Node(
            value=None,
            file=self._notes.file,
            line=line,
            column=column,
            path=path,
            key_place=None if key is None else _place(key),
        )
        self._count += 1
        if self._count > MAX_VALUES or depth > MAX_DEPTH:
            if self._count <= MAX_VALUES or self._count == MAX_VALUES + 1:
                self._notes.wrong(node, "repeats itself without end, or too often, by anchors")
            self._count = MAX_VALUES + 1
            return None
        if isinstance(made, yaml.MappingNode):
            return attrs.evolve(node, value=self._mapping(made, path, depth))
        if isinstance(made, yaml.SequenceNode):
            found = [
                self.node(each, f"{path}[{at}]", None, depth + 1)
                for at, each in enumerate(made.value)
            ]
            return attrs.evolve(node, value=[each for each in found if each is not None])
        is_plain = getattr(made, "style", None) is None
        value = meaning(made.value) if is_plain else made.value
        return attrs.evolve(node, value=value, text=made.value, is_plain=is_plain)

    def _mapping(self, made: yaml.MappingNode, path: str, depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in made.value:
            if self._count > MAX_VALUES:
                break
            if not isinstance(key, yaml.ScalarNode):
                line, column = _place(key)
                message = "a key must be a word, not a list or a mapping"
                self._notes.wrong(Node(None, self._notes.file, line, column, path), message)
            elif key.value == "<<" and key.style is None:
                self._merge(value, path, merged, depth)
            else:
                self._add(found, key, self.node(value, _joined(path, key.value), key, depth + 1))
        return {**merged, **found}

    def _add(self, found: dict[str, Node], key: yaml.ScalarNode, node: Node | None) -> None:
        if node is None:
            return
        if is_key(key.value):
            self._notes.wrong(node, "a secret stands in the place of a name", at_key=True)
            return
        if (first := found.get(key.value)) is not None:
            line = (first.key_place or (0, 0))[0]
            self._notes.wrong(node, f"is there twice: also in line {line}", at_key=True)
            return
        found[key.value] = node

    def _merge(self, made: yaml.Node, path: str, merged: dict[str, Node], depth: int) -> None:
        """Take in what a merge key names; who is named first wins."""
        several = made.value if isinstance(made, yaml.SequenceNode) else [made]
        for each in several:
            if not isinstance(each, yaml.MappingNode):
                line, column = _place(each)
                node = Node(None, self._notes.file, line, column, _joined(path, "<<"))
                self._notes.wrong(node, "must be a mapping, or a list of them")
                continue
            taken = self.node(each, path, None, depth + 1)
            for key, node in (taken.items if taken is not None else {}).items():
                merged.setdefault(key, node)


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _place(made: yaml.Node) -> tuple[int, int]:
    return made.start_mark.line + 1, made.start_mark.column + 1
