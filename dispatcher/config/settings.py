"""From the nodes of a file to what a dispatcher is made of; every problem is noted first."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import attrs

from llmdispatcher.config import arguments, older, reading, specs, strange
from llmdispatcher.config.convert import Converter
from llmdispatcher.config.guard import NOTHING
from llmdispatcher.config.node import Node, Notes, overlaid
from llmdispatcher.config.scalars import hint
from llmdispatcher.config.sections import APART, Books, Replies, Sections
from llmdispatcher.config.specs import Named
from llmdispatcher.models import presets
from llmdispatcher.models.catalog import Catalog
from llmdispatcher.models.check import nearest
from llmdispatcher.models.errors import BadRequest, ConfigError, Problem
from llmdispatcher.models.strategy import PLANS, STRATEGIES, Strategy, read_strategy
from llmdispatcher.vendors.contract import VendorSpec


@attrs.frozen(kw_only=True)
class Settings:
    """What a file, and the preset that it names, come to."""

    file: str = ""
    sections: Sections = attrs.field(factory=Sections)
    vendors: tuple[Named, ...] = ()
    top: Node = attrs.field(factory=lambda: Node({}))
    """All that was said, the preset under the file, each value with its place."""
    hints: tuple[Problem, ...] = ()
    """What does not work yet, such as a key that is missing, or may be a slip."""

    @property
    def specs(self) -> tuple[VendorSpec, ...]:
        """The vendors to register, in the order of the file."""
        return tuple(each.spec for each in self.vendors if each.spec is not None)

    def placed(self, error: ConfigError) -> ConfigError:
        """Return an error of starting vendors with the place of each in the file."""
        nodes = {f"vendor {each.name!r}": each.node for each in self.vendors}
        problems = []
        for problem in error.problems:
            node = nodes.get(problem.key_path.partition(": ")[0])
            if node is not None and problem.line is None:
                line, column = node.key_place or (node.line, node.column)
                problem = attrs.evolve(  # noqa: PLW2901 - the same, with its place
                    problem, key_path=node.path, file=node.file, line=line, column=column
                )
            problems.append(problem)
        return ConfigError(problems)


def load(
    path: Path,
    environment: Mapping[str, str],
    *,
    allow_cloud: bool | None = None,
    is_strange: bool = False,
) -> Settings:
    """Read a file; ``allow_cloud`` goes before what it says of that.

    One that ``is_strange`` was found in the current folder, which may have come from elsewhere: it
    may not do all that others may; see ``strange``. Raises ConfigError with every problem in it.
    """
    notes = Notes(str(path))
    top = reading.read_file(path, notes)
    converter = Converter(notes, environment, path.absolute().parent)
    return _settings(top, converter, allow_cloud=allow_cloud, is_strange=is_strange)


def parse(data: bytes, environment: Mapping[str, str], file: str = "") -> Settings:
    """Read what would stand in a file. Raises ConfigError with every problem in it."""
    notes = Notes(file)
    return _settings(reading.read(data, notes), Converter(notes, environment))


def _settings(
    top: Node | None,
    converter: Converter,
    *,
    allow_cloud: bool | None = None,
    is_strange: bool = False,
) -> Settings:
    notes = converter.notes
    if top is None:
        notes.end()
        return Settings()
    top = older.translated(top, converter)
    top = _over_preset(top, converter)
    vendors = specs.named(top.get("vendors"), converter)
    if is_strange:
        strange.tame(vendors, notes)
    sections = _sections(top, converter)
    if allow_cloud is None and (said := top.get("allow_cloud")) is not None:
        allow_cloud = said.value
    _agree(top, vendors, notes, allow_cloud=allow_cloud)
    notes.end()
    sections = attrs.evolve(sections, allow_cloud=allow_cloud)
    return Settings(
        file=notes.file, sections=sections, vendors=vendors, top=top, hints=tuple(notes.hints)
    )


def _over_preset(top: Node, converter: Converter) -> Node:
    """Lay a file over the preset that it names."""
    said = top.get("preset")
    if said is None:
        return top
    name = converter.read(said, str)
    try:
        presets.read_preset(name)
    except BadRequest as error:
        if name is not NOTHING:
            converter.notes.wrong(said, f"is {name!r}; must be {error.allowed}")
        return top.without("preset")
    rows = reading.read(presets.text().encode(), Notes(f"preset {name}"))
    assert rows is not None  # noqa: S101 - it is ours
    beside = ("why", "strategy") if top.get("strategy") is not None else ("why",)
    return overlaid(rows.items[name].without(*beside), top)  # a strategy is said as a whole


# -- sections ----------------------------------------------------------------------------------


def _sections(top: Node, converter: Converter) -> Sections:
    known = arguments.of_class(Sections)
    simple = {name: each for name, each in known.items() if name not in APART}
    given = {
        key: node
        for key, node in top.items.items()
        if key not in APART and not (key in known and node.value is None)
    }
    for key in given.keys() - known.keys():
        converter.unknown(given[key], key, [*known, *APART])
    left = attrs.evolve(top, value={key: node for key, node in given.items() if key in known})
    strategy, ledger = _strategy(top.get("strategy"), converter), _ledger(top, converter)
    cache = _file(top.get("cache"), Replies, converter)
    _catalog(top.get("catalog"), converter)
    maker = arguments.Maker(Sections, simple)
    made = converter.made(maker, left)
    if NOTHING in (made, strategy, ledger, cache):
        return NOTHING  # type: ignore[no-any-return]
    whole: Sections = attrs.evolve(made, strategy=strategy, ledger=ledger, cache=cache)
    return whole


def _strategy(node: Node | None, converter: Converter) -> Strategy:
    """Read a strategy: its name, its fields, or ``{plan: …}`` with the fields of the plan."""
    if node is None:
        return STRATEGIES["cost"]
    if isinstance(node.value, dict):
        return _made_strategy(node, converter)
    name = converter.read(node, str)
    if name is NOTHING:
        return NOTHING  # type: ignore[no-any-return]
    if name in PLANS:
        return _plan(node, attrs.evolve(node, value={}), converter)
    try:
        return read_strategy(name) or STRATEGIES["cost"]
    except BadRequest as error:
        converter.notes.wrong(node, f"is {name!r}; must be {error.allowed}")
        return NOTHING  # type: ignore[no-any-return]


def _made_strategy(node: Node, converter: Converter) -> Strategy:
    if (plan := node.get("plan")) is not None:
        return _plan(plan, node.without("plan"), converter)
    fields = arguments.of_class(Strategy)
    fields.pop("plan")
    made: Strategy = converter.made(arguments.Maker(Strategy, fields), node.without("plan"))
    return made


def _plan(node: Node, fields: Node, converter: Converter) -> Strategy:
    """Make a strategy that is a plan."""
    name = converter.read(node, str)
    if name not in PLANS:
        if name is not NOTHING:
            converter.notes.wrong(node, f"{name!r} is no plan; {nearest(name, PLANS)}")
        return NOTHING  # type: ignore[no-any-return]
    module, _, kind = PLANS[name].partition(":")
    made = converter.made(arguments.maker(getattr(import_module(module), kind)), fields)
    return NOTHING if made is NOTHING else Strategy(plan=made)


def _ledger(top: Node, converter: Converter) -> Books | None:
    """Read ``ledger``; budgets need one, said or not."""
    if top.get("ledger") is None and top.get("budgets") is not None:
        return Books()
    return _file(top.get("ledger"), Books, converter)


F = TypeVar("F", Books, Replies)


def _file(node: Node | None, kind: type[F], converter: Converter) -> F | None:
    """Read what is kept in a file: true, the path of the file, or its arguments."""
    if node is None:
        return None
    if isinstance(node.value, bool):
        return kind() if node.value else None
    if isinstance(node.value, dict):
        made: F = converter.made(arguments.maker(kind), node)
        return made
    if way_out := hint(node.value, wants="bool"):
        converter.notes.wrong(node, f"is {node.text!r}; must be true, false or a file; {way_out}")
        return NOTHING  # type: ignore[no-any-return]
    path = converter.read(node, Path)
    return NOTHING if path is NOTHING else kind(path=path)


def _catalog(node: Node | None, converter: Converter) -> None:
    """Check what is said of models; the problems of its own reader get their places."""
    if node is None or not isinstance(node.value, dict):
        return
    try:
        Catalog.parse(node.bare())
    except ConfigError as error:
        places = {place.path.removeprefix("catalog."): place for place in node.all()}
        for problem in error.problems:
            place = places.get(problem.key_path, node)
            converter.notes.wrong(place, problem.message, at_key="unknown key" in problem.message)


# -- what must agree ---------------------------------------------------------------------------


def _agree(
    top: Node, vendors: tuple[Named, ...], notes: Notes, *, allow_cloud: bool | None
) -> None:
    """Note where sections contradict each other, and where a name is nobody's."""
    if allow_cloud is False:
        for each in vendors:
            if each.spec is not None and not specs.is_local(each.spec):
                message = "is not on this machine, and allow_cloud is false: set enabled: false"
                notes.wrong(each.node, message, at_key=True)
    if vendors and not any(each.enabled for each in vendors):
        message = "not one of the vendors is enabled: enable one, or leave them all out"
        notes.wrong(top.items["vendors"], message, at_key=True)
    node = top.get("ledger")
    if node is not None and node.value is False and top.get("budgets") is not None:
        notes.wrong(node, "is false, and budgets need a ledger: leave it out, or the budgets")
    if vendors:
        _names(top, [each.name for each in vendors], notes)


def _names(top: Node, known: list[str], notes: Notes) -> None:
    """Say which names are of no vendor here; the program may register it, or it is a slip."""
    routing = top.get("routing") or Node({})
    for table in (top.get("limits"), routing.get("priorities"), routing.get("weights")):
        for name, node in (table.items if table is not None else {}).items():
            if name.partition("/")[0] not in known:
                notes.hint(node, f"no vendor of this file is called so; {nearest(name, known)}")
