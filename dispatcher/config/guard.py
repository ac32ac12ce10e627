"""Stands between a file and its values: lets no secret through that is written down in the file."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

import attrs

from llmdispatcher.config import kinds
from llmdispatcher.config.arguments import Argument
from llmdispatcher.config.node import Node, Notes
from llmdispatcher.config.secrecy import REFERENCE, VARIABLE, is_key
from llmdispatcher.vendors.http.secret import Secret, is_sensitive

NOTHING: Any = attrs.NOTHING
"""Stands for what could not be read: the problem is noted already."""

_IN_ENVIRONMENT = "name the environment variable that holds it, not the key itself"

LONGEST_NAME_CHARS = 40
"""Of a variable; what is longer was meant for the key itself."""


class Guard:
    """Of one file."""

    def __init__(self, notes: Notes, environment: Mapping[str, str]) -> None:
        self._notes, self._environment = notes, environment

    def has(self, variable: str) -> bool:
        """Whether an environment variable is set, to more than blanks."""
        return bool(self._environment.get(variable, "").strip())

    def search(self, node: Node) -> None:
        """Note what looks like a key in what means nothing."""
        if isinstance(node.value, dict | list):
            for each in node.value.values() if isinstance(node.value, dict) else node.value:
                self.search(each)
        elif is_key(node.text):
            self.is_clear(node)

    def variable(self, node: Node) -> Any:  # noqa: ANN401 - text, or NOTHING
        """Read the name of an environment variable."""
        if node.value is None:
            return None
        name = str(node.text)
        if not VARIABLE.fullmatch(name) or is_key(name):
            told = (
                "looks like a key"
                if is_key(name) or len(name) > LONGEST_NAME_CHARS
                else "is no name"
            )
            self._notes.wrong(node, f"{told}: {_IN_ENVIRONMENT}, such as OPENAI_API_KEY")
            return NOTHING
        return name

    def secret(self, argument: Argument, node: Node) -> Any:  # noqa: ANN401 - as the argument is
        """Read what may hold a key: text, or texts by name, with ``${NAME}`` for what is secret.

        Whichever of the two the argument takes. What stands there otherwise is not shown.
        """
        if node.value is None:
            return None
        if isinstance(node.value, dict) and kinds.takes_mapping(argument.kind):
            found = {key: self._expanded(value, key) for key, value in node.items.items()}
            return NOTHING if NOTHING in found.values() else found
        if not kinds.takes_text(argument.kind):
            self._notes.wrong(node, "must be a mapping of names to texts, with ${NAME} for secrets")
            return NOTHING
        is_all_secret = Secret in (argument.kind, *typing.get_args(argument.kind))
        return self._expanded(node, "secret" if is_all_secret else "")

    def _expanded(self, node: Node, name: str) -> Any:  # noqa: ANN401 - text, or NOTHING
        """Put in the variables that a text names. ``name`` tells whether the rest is a secret."""
        text = node.text if isinstance(node.value, str | int | float) else ""
        if not text or isinstance(node.value, bool):
            self._notes.wrong(node, "must be text, such as ${NAME} for what a variable holds")
            return NOTHING
        rest = REFERENCE.sub("", text)
        is_open = REFERENCE.search(text) is None
        if is_key(rest) or "@" in rest or (is_sensitive(name) and is_open):
            self._notes.wrong(
                node,
                "a secret stands in the file: write ${NAME}, and put it into the"
                " environment variable NAME",
            )
            return NOTHING
        names = REFERENCE.findall(text)
        for each in names:
            if not VARIABLE.fullmatch(each):
                self._notes.wrong(node, "${…} takes the name of an environment variable")
                return NOTHING
            if each not in self._environment:
                self._notes.wrong(node, f"the environment variable {each} is not set")
                return NOTHING
        return REFERENCE.sub(lambda found: self._environment[found.group(1)], text)

    def is_clear(self, node: Node) -> bool:
        """Whether a text is no secret and names none; noted if it is, without showing it."""
        if is_key(node.text):
            self._notes.wrong(
                node,
                f"looks like a key, which no file may hold: {_IN_ENVIRONMENT}, with api_key_env",
            )
            return False
        if any(VARIABLE.fullmatch(name) for name in REFERENCE.findall(node.text)):
            self._notes.wrong(
                node, "environment variables stand for secrets alone: write the value"
            )
            return False
        return True
