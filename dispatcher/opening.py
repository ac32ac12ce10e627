"""The configuration on the command line: the options that name one, and the dispatcher it makes."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from llmdispatcher.models.errors import RequestError

if TYPE_CHECKING:
    from llmdispatcher.config.source import Source
    from llmdispatcher.facade import Dispatcher
    from llmdispatcher.ledger import Ledger
    from llmdispatcher.listener import OnEvent
    from llmdispatcher.terminal import Terminal
    from llmdispatcher.vendors.contract import VendorSpec

_NAMING = {
    "model": "--model",
    "vendor": "--vendor",
    "base_url": "--base-url",
    "context_tokens": "--context",
    "max_threads": "--threads",
    "max_gpu_layers": "--gpu-layers",
    "max_memory_mb": "--memory-mb",
}
"""Options that say whom to ask, so that no file does."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("the configuration")
    add_file_options(group)
    group.add_argument(
        "--allow-cloud",
        action="store_true",
        help="ask clouds too whose key is in the environment, of which --model is then the name of"
        " a model; text goes there",
    )


def add_file_options(group: argparse._ArgumentGroup) -> None:
    """Add those that say which file counts."""
    group.add_argument(
        "--config",
        metavar="FILE",
        help="ask whom it names; default: the file that llmdispatcher config show tells, unless"
        " another option says whom to ask",
    )
    group.add_argument("--no-config", action="store_true", help="read no configuration file")


def named(args: argparse.Namespace) -> tuple[Sequence[VendorSpec], Mapping[str, int]]:
    """Return the vendors that a file names, and their priorities; none where there is no file.

    Raises ConfigError.
    """
    from llmdispatcher.config import places  # noqa: PLC0415 - few have one

    place = None if args.no_config else places.chosen(args.config, os.environ)
    if place is None:
        return (), {}
    from llmdispatcher import offline  # noqa: PLC0415 - as above
    from llmdispatcher.config import settings  # noqa: PLC0415 - yaml takes a while

    read = settings.load(place.path, os.environ, is_strange=place.is_strange)
    confine = offline.confined if read.sections.offline else None
    specs = [confine(spec) if confine else spec for spec in read.specs]
    return specs, read.sections.routing.priorities


def opener(
    args: argparse.Namespace, terminal: Terminal, ledger: Ledger | None
) -> Callable[[OnEvent], Dispatcher] | None:
    """Return what makes the dispatcher of a file, or of what is found; None where neither counts.

    ``ledger`` is for a file that names none. Raises RequestError for options that contradict each
    other, and ConfigError.
    """
    given = vars(args)
    named = [option for field, option in _NAMING.items() if given.get(field) is not None]
    if args.allow_cloud and "--model" in named:
        named.remove("--model")  # where there are clouds it is a name, and no file
    if args.config is not None and (named or args.no_config):
        others = ", ".join([*named, *(["--no-config"] if args.no_config else [])])
        raise RequestError(f"--config names a file, and {others} goes without: leave one out")
    if args.allow_cloud and named:
        raise RequestError(f"--allow-cloud asks all there are, and {', '.join(named)} one of them")
    if named or (args.no_config and not args.allow_cloud):
        return None
    if not args.allow_cloud and not _is_there(args.config):
        return None
    return lambda hear: _opened(args, terminal, ledger, hear)


def _is_there(given: str | None) -> bool:
    """Whether there is a file. Raises ConfigError for one that was named and is not."""
    from llmdispatcher.config import places  # noqa: PLC0415 - few have one

    return places.chosen(given, os.environ) is not None


def _opened(
    args: argparse.Namespace, terminal: Terminal, ledger: Ledger | None, hear: OnEvent
) -> Dispatcher:
    from llmdispatcher.config.source import Source, Wish  # noqa: PLC0415 - yaml takes a while
    from llmdispatcher.facade import Dispatcher  # noqa: PLC0415 - as above

    wish = Wish(args.config, True if args.allow_cloud else None, reads_file=not args.no_config)
    source = Source(wish, hear, otherwise=ledger)
    if source.place is not None and source.place.is_strange:
        terminal.note(f"asks whom {source.place.path} names; --no-config does without")
    for hint in source.settings.hints if vars(args).get("verbose") else ():
        terminal.note(str(hint))
    made = Dispatcher.from_source(source, hear)
    if args.command == "chat" and not terminal.reads_tty:
        _reload_on_hangup(source)
    return made


def _reload_on_hangup(source: Source) -> None:
    """Read the file again at SIGHUP, where no terminal can hang up: there it ends the program."""
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and threading.current_thread() is threading.main_thread():
        watcher = source.watch()
        signal.signal(hangup, lambda *_: watcher.ask())


def note_keys(terminal: Terminal) -> None:
    """Say in one line that there are keys of clouds, which nobody has allowed to be asked."""
    if not any(name.endswith("_API_KEY") for name in os.environ):
        return
    from llmdispatcher.config import found  # noqa: PLC0415 - few have such a key

    if line := found.hint(os.environ, "--allow-cloud --model NAME"):
        terminal.note(line)
