"""Where a configuration file is looked for: the first place that has one counts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import attrs

from llmdispatcher.models.check import path_of
from llmdispatcher.models.errors import ConfigError, Problem

VARIABLE = "LLMDISPATCHER_CONFIG"
FILE = "llmdispatcher.yaml"


@attrs.frozen
class Place:
    """One place, and why it is looked at."""

    path: Path
    why: str
    is_demanded: bool = False
    """Somebody named it, so it has to be there."""
    is_strange: bool = False
    """It may be there without the user's knowing: in a folder that came from elsewhere."""

    @property
    def is_there(self) -> bool:
        """Whether there is something."""
        return self.path.exists()


def places(
    given: str | os.PathLike[str] | None, environment: Mapping[str, str]
) -> tuple[Place, ...]:
    """Return all places in their order; one that is named is the only one."""
    if given is not None:
        return (Place(path_of("config", given), "named by the caller", is_demanded=True),)
    if named := environment.get(VARIABLE, "").strip():
        return (Place(path_of(VARIABLE, named), f"named by {VARIABLE}", is_demanded=True),)
    return (
        Place(Path(FILE), "in the current folder", is_strange=True),
        Place(user_folder() / FILE, "in the user's configuration folder"),
    )


def chosen(given: str | os.PathLike[str] | None, environment: Mapping[str, str]) -> Place | None:
    """Return the place whose file counts; None where there is none.

    Raises ConfigError for one that was named and is not there.
    """
    for place in places(given, environment):
        if place.is_there:
            return place
        if place.is_demanded:
            message = f"there is no such file, which is {place.why}"
            raise ConfigError([Problem(message, "", str(place.path))])
    return None


def user_folder() -> Path:
    """Return the user's configuration folder of this program: ``~/.config/…`` on Linux."""
    import platformdirs  # noqa: PLC0415 - on first use

    return platformdirs.user_config_path("llmdispatcher", appauthor=False)
