"""What is found where no file names vendors: clouds whose key is in the environment."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from llmdispatcher.models.errors import ConfigError
from llmdispatcher.vendors import discovery
from llmdispatcher.vendors.contract import VendorSpec
from llmdispatcher.vendors.http import preset


@attrs.frozen
class Cloud:
    """A cloud that could be asked."""

    name: str
    variable: str
    """The environment variable that holds its key."""

    @property
    def spec(self) -> VendorSpec:
        """How to reach it."""
        return preset.Preset(self.name)(api_key_env=self.variable)


def clouds(environment: Mapping[str, str]) -> tuple[Cloud, ...]:
    """Return the clouds whose key is there, by the variables that their own clients read."""
    found = []
    for name in discovery.names():
        try:
            row = preset.row(name)
        except ConfigError:  # it is none that is reached over HTTP
            continue
        given = [each for each in row.key_env if environment.get(each, "").strip()]
        if row.needs_key and row.base_url and given:
            found.append(Cloud(name, given[0]))
    return tuple(found)


def hint(environment: Mapping[str, str], way: str) -> str:
    """Say in a line that there are keys of clouds, and how to use them; nothing if there are none.

    Text goes to a cloud only where somebody has said so.
    """
    there = clouds(environment)
    if not there:
        return ""
    names = ", ".join(each.variable for each in there)
    verb = "is" if len(there) == 1 else "are"
    return f"{names} {verb} set, and no cloud is asked unless you say so: {way}"
