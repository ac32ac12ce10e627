"""From a vendor's name to what makes its spec, through entry points of installed packages.

A package offers a vendor by an entry point in the group ``llmdispatcher.vendors`` that names a
callable which returns a ``VendorSpec`` when called without arguments. The built-in vendors are
registered in the same way. One vendor is imported at a time, when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from llmdispatcher.models.errors import ConfigError, Problem
from llmdispatcher.vendors.contract import VendorSpec

GROUP = "llmdispatcher.vendors"


def names() -> tuple[str, ...]:
    """Return the names of all vendors that installed packages offer, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def find(name: str) -> Callable[..., VendorSpec]:
    """Import what makes the spec of the vendor called ``name``.

    Raises ConfigError if no installed package offers it, if two do, or if it cannot be imported.
    """
    points = {point.value: point for point in entry_points(group=GROUP, name=name)}
    if not points:
        file = " (a file is LlamaCpp('FILE.gguf'))" if "." in name or "/" in name else ""
        known = ", ".join(names())
        raise _problem(name, f"no installed package offers the vendor{file}; known: {known}")
    if len(points) > 1:
        raise _problem(name, f"several packages offer the vendor: {', '.join(sorted(points))}")
    (point,) = points.values()
    return _load(point)


def _load(point: EntryPoint) -> Callable[..., VendorSpec]:
    try:
        made = point.load()
    except (ImportError, AttributeError) as error:
        raise _problem(point.name, f"{point.value} cannot be imported: {error}") from error
    if not callable(made):
        raise _problem(point.name, f"{point.value} is not callable")
    return made  # type: ignore[no-any-return]


def _problem(name: str, message: str) -> ConfigError:
    return ConfigError([Problem(message, f"vendor {name!r}")])
