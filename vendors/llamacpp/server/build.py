"""What a llama-server can do, read from its ``--help``: flags come and go between releases.

``Build`` is pure. ``known`` starts the program to ask it, once for each file, and so finds out
whether it runs on this machine at all.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

import attrs

from llmdispatcher.models.errors import ExecutableNotFound, TimedOut
from llmdispatcher.vendors.llamacpp.child import causes, spawn
from llmdispatcher.vendors.llamacpp.server.environment import environment

ASK_S = 30.0
"""How long it may take to print its flags or devices: drivers of GPUs take some seconds to load."""

MAX_LINES = 10_000
"""Of what it prints; its help has 700."""

MAX_KNOWN = 16
"""Programs whose flags are remembered."""

ASKS = 3
"""How often to ask for the help: its first lines can pass before they are listened to."""

_FLAG = re.compile(r"(?<![\w-])(--?[a-zA-Z][\w-]*)")
_DEVICE = re.compile(r"^\s+(\S+): (.*) \((\d+) MiB, (\d+) MiB free\)\s*$")
_MIB = 2**20

_LEAST = ("--model", "--ctx-size", "--parallel", "--port")
"""What every llama-server has had."""


@attrs.frozen
class Device:
    """A GPU as the program sees it."""

    name: str
    free_bytes: int


@attrs.frozen(kw_only=True)
class Build:
    """What one build of llama-server takes."""

    flags: frozenset[str]
    has_sockets: bool = False
    """It listens on a Unix socket where its host is the path of one."""
    tells_at_4: bool = False
    """Its buffers are told at verbosity 4, not at the usual 3."""
    flash_takes_word: bool = False
    """``--flash-attn`` takes on, off or auto; before, it was a switch."""

    def has(self, flag: str) -> bool:
        """Whether it knows a flag."""
        return flag in self.flags

    @classmethod
    def of(cls, text: str) -> Build:
        """Read the help."""
        heads = [line for line in text.splitlines() if line.startswith("-")]
        host = text[text.find("--host HOST") :][:400] if "--host HOST" in text else ""
        return cls(
            flags=frozenset(flag for line in heads for flag in _FLAG.findall(_names(line))),
            has_sockets="sock" in host.lower(),
            tells_at_4=re.search(r"-\s*4:\s*trace", text) is not None,
            flash_takes_word=re.search(r"--flash-attn\s+(\[on|\{on|<on|FA|on)", text) is not None,
        )

    def check(self, path: Path) -> None:
        """Refuse a program that is no llama-server. Raises ExecutableNotFound."""
        if missing := [flag for flag in _LEAST if not self.has(flag)]:
            raise ExecutableNotFound(
                f"{path} is not a llama-server that can be used: its --help does not list"
                f" {', '.join(missing)}; give the path of a llama-server of the last year"
            )


def _names(line: str) -> str:
    """Cut off what explains a flag: it is set apart by spaces, and may name others."""
    return re.split(r"(?<=\S)\s{2,}(?=[^-\s])", line, maxsplit=1)[0]


def devices_of(text: str) -> tuple[Device, ...]:
    """Read what ``--list-devices`` prints."""
    found = (_DEVICE.match(line) for line in text.splitlines())
    return tuple(Device(match[1], int(match[4]) * _MIB) for match in found if match)


def known(path: Path) -> Build:
    """Return what a program can do. Raises a VendorError where it cannot be used."""
    try:
        facts = path.stat()
    except OSError as error:
        raise ExecutableNotFound(f"{path} cannot be read: {error.strerror}") from None
    return _asked(str(path), facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=MAX_KNOWN)
def _asked(path: str, _changed_ns: int, _size: int) -> Build:
    """Ask for the help; again where its beginning was missed."""
    build = Build(flags=frozenset())
    for _ in range(ASKS):
        build = Build.of(_printed(path, "--help"))
        if build.has("--help") and build.has("--model"):
            break
    build.check(Path(path))
    return build


def devices(path: Path, build: Build) -> tuple[Device, ...]:
    """Return the GPUs that a program can use now; none where it does not say."""
    if not build.has("--list-devices"):
        return ()
    return devices_of(_printed(str(path), "--list-devices"))


def _printed(path: str, *arguments: str) -> str:
    """Run a program to its end and return what it prints. Raises a VendorError."""
    lines: list[str] = []

    def take(line: str) -> None:
        if len(lines) < MAX_LINES:
            lines.append(line)

    child = spawn.start(
        spawn.Order(command=(path, *arguments), environment=environment(os.environ), kind="server")
    )
    child.tail.listen(take)
    try:
        status = child.wait(ASK_S)
        if status is None:
            raise TimedOut("load", ASK_S)
    finally:
        child.forget()
    if status < 0 or (status and len(lines) < len(_LEAST)):
        raise causes.cause(causes.End(status=status, tail=child.tail.text()))
    return "\n".join(lines)
