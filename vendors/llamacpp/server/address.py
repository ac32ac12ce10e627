"""Where a server listens, and the folder that holds its socket, its key and its files.

The folder is its owner's alone, since whoever may open a socket may use it. Folders of processes
that are gone are removed when the next one is made.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Self

import attrs

from llmdispatcher.models.errors import VendorError
from llmdispatcher.vendors.llamacpp.child import folders
from llmdispatcher.vendors.llamacpp.limits import probe

LOOPBACK = "127.0.0.1"

MAX_SOCKET_BYTES = 100
"""Of the path of a socket: sun_path holds 108 bytes on Linux and 104 on macOS, the last a zero."""

KEY_BYTES = 32

_FOLDER = re.compile(r"place-(\d+)-")
MAX_FOLDERS = 1000
"""Looked at in one go for those that were left behind."""


@attrs.frozen(kw_only=True)
class Address:
    """Where one server is to listen."""

    folder: Path
    key: str
    socket: Path | None
    """Where there are sockets in folders; else ``port``."""
    port: int | None

    @classmethod
    def open(cls, *, sockets: bool) -> Self:
        """Make a folder with a key in it, and choose where to listen.

        Raises VendorError where no folder can be made.
        """
        folder = _folder()
        address = cls(
            folder=folder,
            key=secrets.token_urlsafe(KEY_BYTES),
            socket=folder / "s.sock" if sockets and _fits(folder / "s.sock") else None,
            port=None,
        )
        address.write("key", address.key)
        return address if address.socket else attrs.evolve(address, port=free_port())

    @property
    def host(self) -> str:
        """What a server is told."""
        return LOOPBACK if self.socket is None else str(self.socket)

    @property
    def key_file(self) -> Path:
        """The file that holds the key."""
        return self.folder / "key"

    def write(self, name: str, text: str) -> Path:
        """Write a file for the server, for its owner alone."""
        path = self.folder / name
        try:
            folders.write(path, text)
        except OSError as error:
            raise VendorError(f"{path} cannot be written: {error.strerror}") from None
        return path

    def close(self) -> None:
        """Remove the folder and all that is in it. Idempotent."""
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port() -> int:
    """Return a port that nobody listens on now; another may take it before it is used."""
    with socket.create_server((LOOPBACK, 0)) as probed:
        return int(probed.getsockname()[1])


def _fits(path: Path) -> bool:
    return sys.platform != "win32" and len(os.fsencode(path)) <= MAX_SOCKET_BYTES


def _folder() -> Path:
    """Make a folder of our own, where its path is short enough for a socket if possible."""
    prefix = f"place-{os.getpid()}-"
    with contextlib.suppress(OSError):
        parent = folders.runtime()
        clear(parent)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        if _fits(folder / "s.sock") or sys.platform == "win32":
            return folder
        folder.rmdir()
    try:
        return Path(tempfile.mkdtemp(prefix=f"llmdispatcher-{prefix}"))
    except OSError as error:
        raise VendorError(f"no folder for the server's files can be made: {error}") from None


def clear(parent: Path) -> None:
    """Remove the folders of processes that are gone. Raises nothing."""
    with contextlib.suppress(OSError):
        for _, path in zip(range(MAX_FOLDERS), parent.glob("place-*"), strict=False):
            found = _FOLDER.match(path.name)
            if found and probe.created_s(int(found[1])) is None:
                shutil.rmtree(path, ignore_errors=True)
