"""Keys: where they come from, and a type that never shows one."""

from __future__ import annotations

from typing import NoReturn

from llmdispatcher.models.errors import BadRequest


class Secret:
    """Text that no log, error, repr or traceback shows. Compared like text, and never pickled."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Take a key; blanks around it, which come along when one is copied, are not part of it.

        Raises BadRequest for what cannot be a key, without showing it.
        """
        given = str(text).strip()
        if not given or not given.isascii() or not given.isprintable():
            shown = "empty" if not given else "text with characters that no key has"
            raise BadRequest("api_key", shown, "a key: printable ASCII characters, at least one")
        self._text = given

    def reveal(self) -> str:
        """Return the key, for the header that carries it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not pickled: give the process the environment variable instead")


def secret(value: Secret | str | None) -> Secret | None:
    """Take a key in either form; None is none."""
    return value if value is None or isinstance(value, Secret) else Secret(value)
