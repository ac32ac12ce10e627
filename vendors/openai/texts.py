"""Text out of a stranger's JSON, as UTF-8 can hold it: half of a character becomes U+FFFD."""

from __future__ import annotations

from llmdispatcher.vendors.wire.reading import words


def sound(value: object, what: str = "a text") -> str:
    """Return a text that may be missing. Raises BadReply for what is none."""
    text = words(value, what)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
