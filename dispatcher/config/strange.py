"""What a file may not do that lies in the current folder: nobody named it, and it may be anyone's.

Whoever unpacks an archive and asks a question in it is not to start its programs, nor to send the
key of a cloud to a host of its choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from llmdispatcher.config.node import Node, Notes
from llmdispatcher.config.secrecy import REFERENCE
from llmdispatcher.config.specs import Named
from llmdispatcher.models.errors import BadRequest, ConfigError
from llmdispatcher.vendors import discovery
from llmdispatcher.vendors.http import address, preset
from llmdispatcher.vendors.http.vendor import HttpVendor

PROGRAMS = ("executable", "worker_command")
"""Keys of vendors that have something started."""

_WAY_OUT = "which only a file may that you name yourself: --config, from_config(path)"


def tame(vendors: Iterable[Named], notes: Notes) -> None:
    """Note what such a file may not say."""
    for vendor in vendors:
        for key in PROGRAMS:
            if (node := vendor.node.get(key)) is not None:
                notes.wrong(node, f"names a program, {_WAY_OUT}", at_key=True)
        if isinstance(vendor.spec, HttpVendor):
            _keep_keys(vendor.spec, vendor.node, notes)


def _keep_keys(spec: HttpVendor, node: Node, notes: Notes) -> None:
    """Note keys of known clouds that would go anywhere else."""
    row = preset.row(spec.preset)
    try:
        place = address.address(spec.base_url or row.base_url, row.api_path)
    except BadRequest:  # which is noted already
        return
    for variable, said in _variables(node):
        domains = _owners().get(variable)
        if domains and not (place.is_inner or address.is_under(place.host, domains)):
            notes.wrong(said, f"sends the key in {variable} to {place.host}, {_WAY_OUT}")


def _variables(node: Node) -> Iterator[tuple[str, Node]]:
    """Return the variables whose values are sent."""
    if (named := node.get("api_key_env")) is not None:
        yield named.text, named
    for each in node.all():
        for variable in REFERENCE.findall(each.text):
            yield variable, each


@cache
def _owners() -> Mapping[str, tuple[str, ...]]:
    """Return the domains of those whose own clients read a variable."""
    found: dict[str, tuple[str, ...]] = {}
    for name in discovery.names():
        try:
            row = preset.row(name)
        except ConfigError:  # it is none that is reached over HTTP
            continue
        for variable in row.key_env:
            found[variable] = (*found.get(variable, ()), *row.key_domains)
    return found
