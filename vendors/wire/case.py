"""All that is known of one error, before it is known what it stands for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import attrs

from llmdispatcher.models.errors import VendorFacts
from llmdispatcher.vendors.wire import patience
from llmdispatcher.vendors.wire.redaction import cleaned
from llmdispatcher.vendors.wire.said import Said

_REQUEST_IDS = (
    "x-request-id",
    "request-id",
    "apim-request-id",
    "x-ms-request-id",
    "x-litellm-call-id",
    "x-generation-id",
    "mistral-correlation-id",
    "x-amzn-requestid",
    "x-correlation-id",
    "cf-ray",
)
"""Headers that name the answer, to be told to the vendor's support; the vendor's own first."""

_ID_CHARS = 128

_PHRASES = {
    498: "no capacity",
    499: "the request was abandoned",
    520: "an unknown error behind a proxy",
    521: "the server is down behind a proxy",
    522: "no connection behind a proxy",
    523: "the server is unreachable behind a proxy",
    524: "time ran out behind a proxy",
    525: "no secure connection behind a proxy",
    526: "a bad certificate behind a proxy",
    529: "overloaded",
    530: "no such server behind a proxy",
}
"""What statuses mean that HTTP does not know."""


@attrs.frozen(kw_only=True)
class Case:
    """All that is known of one error."""

    said: Said
    status: int | None
    headers: Mapping[str, str]

    @property
    def words(self) -> str:
        """What the vendor said, fit to be shown; what its status means, where it said nothing."""
        if words := cleaned(self.said.message):
            return f"a page, {words!r}" if self.said.is_page else words
        if self.status is None:
            return "it gave no reason"
        return f"{self.status} {_phrase(self.status)}".rstrip()

    @property
    def request_id(self) -> str | None:
        """The vendor's name for this answer."""
        told = next((t for n in _REQUEST_IDS if (t := self.headers.get(n))), self.said.request_id)
        return cleaned(told, _ID_CHARS) or None

    def facts(self, retry_after_s: float | None = None) -> VendorFacts:
        """Return the facts that every vendor error carries."""
        return {
            "status": self.status,
            "request_id": self.request_id,
            "retry_after_s": retry_after_s,
        }

    def wait_s(self) -> float | None:
        """Return how long to wait, as the vendor says, in headers, fields or words."""
        return patience.retry_after_s(self.headers, self.said.waits, self.said.message)


def _phrase(status: int) -> str:
    if status in _PHRASES:
        return _PHRASES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
