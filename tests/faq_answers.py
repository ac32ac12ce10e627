"""The answers that the embedded model is taught, and what in them stands for a part of the program.

Every list here that is not written down is read from the package.
"""

from __future__ import annotations

import argparse
import inspect
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import attrs

import llmdispatcher
from llmdispatcher import (
    AllVendorsFailed,
    AuthRejected,
    Delta,
    Dispatcher,
    Reply,
    Request,
    Sampling,
    Stats,
    Stream,
    StreamInterrupted,
    TimedOut,
    cli,
)
from llmdispatcher.config.places import VARIABLE
from llmdispatcher.config.sections import Sections
from llmdispatcher.models import presets
from llmdispatcher.models.embedding import RouteOptions
from llmdispatcher.models.fields import EFFORTS, RESUMES
from llmdispatcher.models.race import WAYS
from llmdispatcher.models.request import Options
from llmdispatcher.models.stages import ROLES
from llmdispatcher.models.strategy import PLANS, STRATEGIES
from llmdispatcher.models.task import Task
from llmdispatcher.vendors import discovery
from llmdispatcher.vendors.http.preset import HttpOptions, row
from llmdispatcher.vendors.llamacpp.stores.places import MODELS
from llmdispatcher.vendors.llamacpp.vendor import ISOLATIONS, LlamaCpp

ROOT = Path(__file__).parents[1]


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


SELF = words(
    "who size abilities quality learn alive hello how_are_you thanks praise insult ok bye"
    " joke joke_again joke_computer poem"
)
"""Entries about the model itself, and small talk."""

AFTER_THE_NAME = words("sends is downloads well and")
"""What may follow the word llmdispatcher where it is no command."""

METAVARS = words("FILE NAME URL N T TEXT")
"""Words that stand for what the user puts there."""

MEANT = words("MyClass photo texts messages reply stream delta d")
"""Names of the caller's own in an expression."""

PRODUCTS = words(
    "API Claude Ctrl-C Ctrl-D Face GBNF GGUF GPU Hugging JSON LM Linux MIT Python Windows"
    " macOS vLLM"
)
"""Names that are nobody's in the package, and abbreviations."""

HEADS = words("Others Run Timeouts Vendors")
"""Words that stand before a colon without being the name of an error."""

SHOWN = words("one two before after legal a query")
"""Quoted words of examples, which are the user's own."""


def read(path: Path) -> dict[str, str]:
    """Return the answers by the names of their entries."""
    told: dict[str, str] = {}
    name = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            name = heading[1]
            assert name not in told, f"{name} is there twice"
        elif line.startswith("= "):
            assert name not in told, f"{name} has two answers"
            told[name] = line.removeprefix("= ").replace("\\n", "\n")
    return told


ANSWERS = read(ROOT / "models" / "training" / "faq.txt")


# -- what there is -----------------------------------------------------------------------------


@cache
def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of every command: "" is the program, "config init" one in another."""
    found = {"": cli._parser()}
    for name in ("", "config"):
        for action in found[name]._actions:
            if isinstance(action, argparse._SubParsersAction):
                for key, parser in action.choices.items():
                    found[f"{name} {key}".strip()] = parser
    return found


def options(command: str) -> frozenset[str]:
    """Return the options of a command and of the program."""
    known = parsers()
    return frozenset(known[command]._option_string_actions) | frozenset(
        known[""]._option_string_actions
    )


def members(*kinds: Any) -> frozenset[str]:
    """Return the attributes of classes or values, the fields of frozen ones included."""
    found = {name for kind in kinds for name in dir(kind) if not name.startswith("_")}
    for kind in kinds:
        if attrs.has(kind if isinstance(kind, type) else type(kind)):
            found |= {each.name for each in attrs.fields(kind)}
    return frozenset(found)


RAISED = (
    TimedOut("total", 1.0),
    StreamInterrupted("cut"),
    AllVendorsFailed.after([AuthRejected("no key")]),
)
"""Errors whose facts are attributes of each, and not of the class."""

OWNERS = {
    "d": members(Dispatcher),
    "Dispatcher": members(Dispatcher),
    "reply": members(Reply),
    "reply.decision": members(llmdispatcher.Decision),
    "stream": members(Stream),
    "delta": members(Delta),
    "Price": members(llmdispatcher.Price),
    "TimedOut": members(*RAISED),
    "": members(*RAISED, Reply),
}
"""Whose attribute stands behind a name and a dot; behind a space, one of a reply or an error."""


@cache
def keywords() -> frozenset[str]:
    """Return every keyword that a request, a vendor or a dispatcher takes."""
    found = set(Options.__annotations__) | set(HttpOptions.__annotations__)
    found |= set(RouteOptions.__annotations__) | set(inspect.signature(Dispatcher).parameters)
    return frozenset(found | members(LlamaCpp, Sections, Stats, Request, Sampling))


@cache
def variables() -> frozenset[str]:
    """Return the environment variables that are read."""
    found = {VARIABLE, MODELS}
    for name in discovery.names():
        if name not in {"embedded", "llamacpp", "scripted"}:
            found |= set(row(name).key_env)
    return frozenset(found)


@cache
def values() -> frozenset[str]:
    """Return the words that name a strategy, a way, a step, a task and so on."""
    tables = (STRATEGIES, PLANS, WAYS, ROLES, RESUMES, EFFORTS, ISOLATIONS, presets.presets())
    found = {word for table in tables for word in table}
    return frozenset(found | {task.value for task in Task} | {"day", "grammar", "json"})


@cache
def vocabulary() -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the program, and with them all that may look like one in prose."""
    known = keywords() | variables() | frozenset(llmdispatcher.__all__)
    others = PRODUCTS | METAVARS | MEANT | values() | {"None", "True", "False"}
    return known, known.union(others, *OWNERS.values())


def project() -> dict[str, Any]:
    """Return the project table of pyproject.toml."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(told["project"])


# -- what is said ------------------------------------------------------------------------------


def calls(answer: str) -> Iterator[str]:
    """Yield the outermost calls in an answer, such as ``d.send("Hi")``, as source."""
    end = 0
    for found in re.finditer(r"[A-Za-z_][\w.]*\(", answer):
        if found.start() >= end:
            end = _closed(answer, found.end())
            yield answer[found.start() : end]


def _closed(text: str, start: int) -> int:
    depth = 1
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place + 1
    raise AssertionError(f"a bracket is not closed: {text}")


def without(answer: str) -> str:
    """Return an answer without its quotes, options, paths, addresses and files."""
    answer = re.sub(r"\"[^\"\n]*\"|'[^'\n]*'(?!\w)", " ", answer)
    answer = re.sub(r"--?[a-z][a-z-]*\b", " ", answer)
    return re.sub(r"\S*/\S+|\b[\w-]+\.(?:gguf|yaml|txt|cpp)\b", " ", answer)


def snippet(answer: str) -> str:
    """Return an answer that is a program of several lines, or nothing."""
    return answer if re.match(r"(from|for|import) .*[\n:]", answer) else ""
