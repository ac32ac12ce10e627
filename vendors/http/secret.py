"""Keys: a type that never shows one, and how errors are rid of them.

``hushed`` takes keys out of what an error says, ``frameless`` out of what a debugger or a report
would show of it: in the frames of an HTTP client headers are variables like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn, Self, TypeVar
from urllib.parse import unquote, urlsplit

from llmdispatcher.models.errors import BadRequest, DispatcherError
from llmdispatcher.vendors.wire.redaction import HIDDEN, MIN_SECRET_CHARS

SENSITIVE = ("auth", "key", "token", "secret", "cookie", "credential", "password", "signature")
"""What names of headers have in them that carry secrets."""

E = TypeVar("E", bound=DispatcherError)


class Secret:
    """Text that no log, error, repr or traceback shows. Compared like text, and never pickled."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Take a key; blanks around it, which come along when one is copied, are not part of it.

        Raises BadRequest for what cannot be a key, without showing it.
        """
        fault = _unfit(text)
        if not fault:
            self._text = text.strip()
        del text  # a traceback would show it
        if fault:
            raise BadRequest("api_key", fault, "a key: printable ASCII characters, at least one")

    def reveal(self) -> str:
        """Return the key, for the header that carries it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not pickled: give the process the environment variable instead")


def _unfit(text: object) -> str:
    """Return why a text is no key, without showing it; nothing if it is one."""
    if not isinstance(text, str):
        return type(text).__name__
    given = text.strip()
    if not given:
        return "empty"
    return "" if given.isascii() and given.isprintable() else "text with characters that no key has"


def secret(value: Secret | str | None) -> Secret | None:
    """Take a key in either form; None is none."""
    held = [value]
    del value  # a traceback would show it
    if held[0] is None or isinstance(held[0], Secret):
        return held[0]
    return Secret(held.pop())  # type: ignore[arg-type] # not a Secret


def is_sensitive(header: str) -> bool:
    """Whether the value of a header is likely to be a secret."""
    name = header.lower()
    return any(word in name for word in SENSITIVE)


def secrets_of(headers: Mapping[str, str], proxy: str | None) -> tuple[str, ...]:
    """Return what of these no error may show: keys, with and without their scheme; passwords."""
    found: list[str] = []
    for name, value in headers.items():
        if is_sensitive(name):
            found += [value, value.partition(" ")[2].strip()]
    if proxy is not None and (password := urlsplit(proxy).password):
        found += [password, unquote(password)]
    return tuple(dict.fromkeys(text for text in found if len(text) >= MIN_SECRET_CHARS))


def hushed(error: E, secrets: Sequence[str]) -> E:
    """Take secrets out of an error; what a reply said until then is left as it is.

    What a vendor sent is a variable of its frames, and it may have repeated the key.
    """
    if secrets:
        frameless(error)
    for held in secrets:
        error.args = tuple(_without(arg, held) for arg in error.args)
        for name, fact in vars(error).items():
            if isinstance(fact, str) and held in fact and name != "partial":
                setattr(error, name, fact.replace(held, HIDDEN))
    return error


def _without(arg: object, held: str) -> object:
    return arg.replace(held, HIDDEN) if isinstance(arg, str) else arg


def frameless(error: BaseException | None) -> None:
    """Take the frames out of an error and of what it came of: in them are headers."""
    left, seen = [error], set[int]()
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = None
        left += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions
