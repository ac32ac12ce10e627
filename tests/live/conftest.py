"""Which vendors elsewhere there are to be tried: told by environment variables, one set each.

Nothing here runs unless it is asked for by its marker. The rule that tests connect to this machine
alone is lifted for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import attrs
import pytest

from llmdispatcher import HttpVendor
from llmdispatcher.vendors.http import preset as presets
from llmdispatcher.vendors.http.preset import Preset, row

PREFIX = "LLMDISPATCHER_LIVE_"

PRESETS: Mapping[str, Preset] = {
    made.name: made for made in vars(presets).values() if isinstance(made, Preset)
}
"""By their names."""


@attrs.frozen(kw_only=True)
class Live:
    """A vendor that was told."""

    preset: str
    address: str
    """Empty for the vendor's own."""
    model: str
    """Empty where the vendor has a list, any model of which does."""
    key_env: str
    """The variable with its key; empty for those that the preset knows."""

    @classmethod
    def told(cls, preset: str) -> Self:
        """Return a vendor that was told; without a part that it needs, the test fails."""
        first, chosen = variable(preset), row(preset)
        value = os.environ[first]
        model = os.environ.get(f"{first}_MODEL", "")
        key_env = f"{first}_KEY" if f"{first}_KEY" in os.environ else ""
        keys = (key_env,) if key_env else chosen.key_env
        lacking = []
        if not model and not chosen.local:
            lacking.append(f"{first}_MODEL: the name of a model")
        if chosen.needs_key and not any(map(os.environ.get, keys)):
            lacking.append(f"{' or '.join(keys)}: the key")
        if lacking:
            pytest.fail(f"{first} is set; these are missing: {'; '.join(lacking)}", pytrace=False)
        address = "" if value == "1" else value
        return cls(preset=preset, address=address, model=model, key_env=key_env)

    @property
    def needs_key(self) -> bool:
        """Whether nothing is served without a key."""
        return row(self.preset).needs_key

    def vendor(self, **options: Any) -> HttpVendor:
        """Make the vendor."""
        given: dict[str, Any] = {"models": [self.model]} if self.model else {}
        if self.address:
            given["base_url"] = self.address
        if self.key_env:
            given["api_key_env"] = self.key_env
        return PRESETS[self.preset](**{**given, **options})


def variable(preset: str) -> str:
    """Return the name of the variable that says that a vendor is there, and where."""
    return PREFIX + preset.upper().replace("-", "_")


def missing() -> list[str]:
    """Return what may be set, a line for each vendor; nothing where any is."""
    lines = []
    for name in PRESETS:
        first, chosen = variable(name), row(name)
        if os.environ.get(first):
            return []
        where = "=http://…" if chosen.local or not chosen.base_url else "=1"
        keys = " or ".join(chosen.key_env)
        key = f" with {keys}" if chosen.needs_key else f", and {first}_KEY if it wants one"
        model = f"{first}_MODEL" + (" (or any that it has)" if chosen.local else "")
        lines.append(f"{first}{where} and {model}{key}")
    return lines


@pytest.fixture(autouse=True)
def _loopback_only() -> None:
    """Lift the rule of the same name: these tests are there to connect elsewhere."""


@pytest.fixture(params=[name for name in PRESETS if os.environ.get(variable(name))])
def live(request: pytest.FixtureRequest) -> Live:
    """Each vendor that was told, in turn."""
    return Live.told(request.param)
