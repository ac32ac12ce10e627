"""``llmdispatcher models``: which models could be used, what they can do, cost and take."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher import remote
from llmdispatcher.models.card import Capability
from llmdispatcher.models.check import nearest
from llmdispatcher.terminal import one_line

if TYPE_CHECKING:
    from llmdispatcher.stock import Item
    from llmdispatcher.terminal import Terminal
    from llmdispatcher.vendors.contract import VendorSpec

MAX_PROBLEMS = 5
"""Lines for people about files that cannot be used; JSON has them all."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)

_TOLD = (
    Capability.EMBED,
    Capability.RERANK,
    Capability.TOOLS,
    Capability.SCHEMA,
    Capability.VISION,
    Capability.EFFORT,
    Capability.INFILL,
)
"""What tells models apart; nearly all chat."""


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    which = parser.add_argument_group("which models")
    which.add_argument("--provider", metavar="NAME", help="of this one alone")
    which.add_argument(
        "--capable", metavar="WHAT,…", type=_abilities, default=frozenset(),
        help="that can do all of this: chat, tools, vision, schema, embed…",
    )  # fmt: skip
    which.add_argument(
        "--max-size", metavar="SIZE", type=_bytes, help="files of at most so much, such as 4GB"
    )
    which.add_argument("--free", action="store_true", help="that cost nothing")
    which.add_argument("--fits", action="store_true", help="files that fit on this machine now")
    which.add_argument("--all", action="store_true", help="of clouds without a key, too")
    where = parser.add_argument_group("where")
    where.add_argument(
        "--refresh", action="store_true", help="ask clouds that have a key for their lists"
    )
    where.add_argument(
        "--folder", metavar="DIR", type=Path, action="append", default=[],
        help="look for GGUF files there, too; may be repeated",
    )  # fmt: skip
    remote.add_options(where)
    parser.add_argument("--json", action="store_true", help="print JSON")


def models(args: argparse.Namespace, terminal: Terminal, vendors: Sequence[VendorSpec]) -> int:
    """List models; the exit code is 1 where there are none such."""
    from llmdispatcher import stock  # noqa: PLC0415 - the other commands do without

    wish = stock.Wish(
        vendor=args.provider,
        capable=args.capable,
        max_size_bytes=args.max_size,
        free=args.free,
        fits=args.fits,
        all=args.all,
        refresh=args.refresh,
        folders=args.folder,
    )
    if args.vendor:
        vendors = [remote.vendor(args, {})]
    found = stock.asked(vendors, wish) if vendors else stock.gather(wish)
    terminal.write(as_json(found.items) if args.json else text(found.items, terminal.writes_tty))
    for note in found.notes:
        terminal.note(note)
    if not found.items and not (vendors and found.notes):
        is_plain = wish == stock.Wish(vendor=wish.vendor, folders=wish.folders)
        terminal.note(_nothing(wish.vendor if is_plain else None))
    return 0 if found.items else 1


def _nothing(vendor: str | None) -> str:
    if vendor is not None:
        return f"no model of {vendor!r} is known; llmdispatcher providers lists who is there"
    return "no model is such; leave out one of the options, or see llmdispatcher models --all"


def _abilities(given: str) -> frozenset[Capability]:
    """Read a list of abilities."""
    words = [word.strip().lower() for word in given.split(",") if word.strip()]
    known = [str(each) for each in Capability]
    for word in words:
        if word not in known:
            raise argparse.ArgumentTypeError(
                f"{word!r} is nothing that a model can do; {nearest(word, known)}"
            )
    return frozenset(map(Capability, words))


def _bytes(given: str) -> int:
    """Read a size: 4GB, 3.5 GiB, 800M; without a unit, bytes."""
    found = _SIZE.fullmatch(given.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{given!r} is no size; such as 4GB, 3.5GiB or 800MB")
    number, unit, binary = found.groups()
    power = " kmgt".index(unit.lower()) if unit else 0
    return int(Decimal(number) * (1024 if binary else 1000) ** power)


# -- for people --------------------------------------------------------------------------------


def text(items: Sequence[Item], is_tty: bool) -> str:  # noqa: FBT001 - a fact
    """Draw a table of the models that can be used, and tell of those that cannot."""
    from llmdispatcher.columns import Column, table  # noqa: PLC0415 - with the table

    able = [item for item in items if not item.problem]
    drawn = ""
    if able:
        columns = [
            Column(
                title=title,
                cells=[show(item) for item in able],
                right=title in _NUMBERS,
                worth=worth,
                folds=title == "model",
            )
            for title, worth, show in _COLUMNS
        ]
        drawn = table(columns, is_tty=is_tty)
    return drawn + _problems([item for item in items if item.problem])


def _problems(items: Sequence[Item]) -> str:
    if not items:
        return ""
    count = f"{len(items)} file{'s' if len(items) > 1 else ''} cannot be used:\n"
    lines = [
        f"  {one_line(item.card.model)}: {one_line(item.problem)}\n"
        for item in items[:MAX_PROBLEMS]
    ]
    more = len(items) - MAX_PROBLEMS
    return count + "".join(lines) + (f"  and {more} more, see --json\n" if more > 0 else "")


def _tokens(item: Item) -> str:
    tokens = item.card.context_tokens
    if tokens is None:
        return ""
    for size, unit in ((10**6, "M"), (10**3, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g}{unit}"
    return str(tokens)


def _able(item: Item) -> str:
    return " ".join(each for each in _TOLD if each in item.card.capabilities)


def _price(item: Item) -> str:
    price = item.card.price
    if price is None:
        return "?"
    return "free" if price.is_free else f"{_usd(price.input_pico)}/{_usd(price.output_pico)}"


def _usd(pico: int) -> str:
    return f"{Decimal(pico) / 10**6:f}"


def _size(size: int | None) -> str:
    if size is None:
        return ""
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1000:.0f} kB"


def _fits(item: Item) -> str:
    fit = item.fit
    if fit is None:
        return ""
    if not fit.fits:
        needs = f"no, needs {_size(fit.needed_bytes)} of {_size(fit.limit_bytes)}"
        return "no" if fit.needed_bytes is None else needs
    if fit.gpu_layers == 0:
        return "yes"
    whole = fit.gpu_layers >= fit.layers
    return "yes, on the GPU" if whole else f"{fit.gpu_layers} of {fit.layers} layers on the GPU"


_COLUMNS = (
    ("model", 99, lambda item: item.card.name),
    ("context", 8, _tokens),
    ("can", 5, _able),
    ("$/M in/out", 9, _price),
    ("quality", 3, lambda item: str(item.card.quality or "")),
    ("size", 6, lambda item: _size(item.card.size_bytes)),
    ("stored", 2, lambda item: item.quantisation),
    ("fits here", 7, _fits),
)
"""Titles, worth in a narrow terminal, and what is shown."""

_NUMBERS = ("context", "$/M in/out", "quality", "size")


# -- for programs ------------------------------------------------------------------------------


def as_json(items: Sequence[Item]) -> str:
    """Write the models as a JSON list, all in ASCII; null is "not known"."""
    return json.dumps([_row(item) for item in items], indent=1) + "\n"


def _row(item: Item) -> Mapping[str, Any]:
    card = item.card
    return {
        "vendor": card.vendor,
        "model": card.model,
        "local": card.local,
        "context_tokens": card.context_tokens,
        "max_output_tokens": card.max_output_tokens,
        "capabilities": sorted(card.capabilities),
        "strengths": sorted(card.strengths),
        **_prices(item),
        "quality": card.quality,
        "size_bytes": card.size_bytes,
        "parameters": card.parameters,
        "architecture": item.architecture or None,
        "quantisation": item.quantisation or None,
        "store": item.store or None,
        "path": item.path or None,
        "projector": item.projector or None,
        "fit": None if item.fit is None else attrs.asdict(item.fit),
        "problem": item.problem or None,
    }


def _prices(item: Item) -> Mapping[str, Any]:
    """Return dollars per million tokens, as texts: no float is exact."""
    price = item.card.price
    return {
        "input_usd_per_million": None if price is None else _usd(price.input_pico),
        "output_usd_per_million": None if price is None else _usd(price.output_pico),
        "free": None if price is None else price.is_free,
        "price_version": None if price is None else price.version,
    }


MODELS = (options, models)
"""Options and deed of the command."""
