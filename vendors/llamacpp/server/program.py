"""The programs that can serve: a llama-server, or the server of the wheel ``xllamacpp``.

Both get the same settings, and are talked to in the same way.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import attrs

from llmdispatcher.models.errors import ExecutableNotFound
from llmdispatcher.vendors.llamacpp.child import interpreter
from llmdispatcher.vendors.llamacpp.server import build, find, flags, prebuilt
from llmdispatcher.vendors.llamacpp.server.settings import Settings

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.server.address import Address
    from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp


class Program(Protocol):
    """What can be started as a server."""

    def has_sockets(self) -> bool:
        """Whether it listens on Unix sockets. May start it to ask; raises a VendorError."""

    def gpus(self) -> tuple[int, ...]:
        """Return the free bytes of each GPU that it can use. May start it; raises a VendorError."""

    def command(self, settings: Settings, address: Address) -> tuple[str, ...]:
        """Return what to run; writes what it reads into the address's folder."""


@attrs.frozen
class LlamaServer:
    """A llama-server at a path."""

    path: Path

    def has_sockets(self) -> bool:
        """See ``Program``."""
        return build.known(self.path).has_sockets

    def gpus(self) -> tuple[int, ...]:
        """See ``Program``."""
        found = build.devices(self.path, build.known(self.path))
        return tuple(device.free_bytes for device in found)

    def command(self, settings: Settings, address: Address) -> tuple[str, ...]:
        """See ``Program``."""
        template = settings.template
        place = flags.Place(
            host=address.host,
            port=address.port,
            key_file=address.key_file,
            template_file=None if template is None else address.write("template", template),
        )
        return (str(self.path), *flags.arguments(settings, build.known(self.path), place))


@attrs.frozen
class Prebuilt:
    """The wheel's server, in a Python; None is the one that runs this."""

    python: str | None = None

    def has_sockets(self) -> bool:
        """See ``Program``."""
        return False

    def gpus(self) -> tuple[int, ...]:
        """See ``Program``: the wheels on PyPI use none but Apple's, which were never tried."""
        return ()

    def command(self, settings: Settings, address: Address) -> tuple[str, ...]:
        """See ``Program``."""
        python, path = self.python, None
        options: tuple[str, ...] = ("-P",)
        if python is None:
            if getattr(sys, "frozen", False) or not sys.executable:
                raise ExecutableNotFound(
                    f"this application has no Python to run {find.WHEEL} with: give executable= the"
                    " path of a llama-server"
                )
            python, path = sys.executable, interpreter.path()
            options = interpreter.flags()
        told = {
            **attrs.asdict(settings, value_serializer=_plain),
            "host": address.host,
            "port": address.port,
            "key": address.key,
            "sys_path": path,
        }
        written = address.write("settings.json", json.dumps(told))
        # -P: the script's own folder has modules of names that others may have too
        return (python, *options, str(Path(prebuilt.__file__)), str(written))


def _plain(_instance: object, _field: object, value: object) -> object:
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def program_for(spec: LlamaCpp) -> Program:
    """Return what serves a spec: its own executable, one on PATH, or the wheel.

    Raises ExecutableNotFound.
    """
    try:
        return LlamaServer(find.executable(spec.executable))
    except ExecutableNotFound:
        if spec.executable is None and find.prebuilt():
            return Prebuilt()
        raise
