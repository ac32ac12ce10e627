"""The exam is sat with what a user has."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def asked_once() -> None:
    """Retries and breakers are as a user has them."""
