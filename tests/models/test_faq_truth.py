"""What the embedded model is taught to say about llmdispatcher is true of the program as it is.

Every name, option, command, value and expression in an answer is looked up in the package; a word
that looks like one of these and is none fails, so that no answer outlives what it tells.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any

from faq_answers import (
    AFTER_THE_NAME,
    ANSWERS,
    HEADS,
    MEANT,
    METAVARS,
    OWNERS,
    PRODUCTS,
    ROOT,
    SELF,
    SHOWN,
    calls,
    keywords,
    members,
    options,
    parsers,
    project,
    snippet,
    values,
    vocabulary,
    without,
)

import llmdispatcher
from llmdispatcher import (
    BreakerPolicy,
    Dispatcher,
    DispatcherError,
    Stats,
    Stream,
    chat,
    cli,
)
from llmdispatcher.config.places import FILE
from llmdispatcher.models import presets
from llmdispatcher.models.race import WAYS
from llmdispatcher.models.request import Options
from llmdispatcher.models.stages import ROLES
from llmdispatcher.vendors import discovery
from llmdispatcher.vendors.llamacpp.plan.fit import DEFAULT_PARALLEL
from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp

LONGEST = 200
FEWEST = 80
"""Answers about using llmdispatcher, of which those about the model itself are none."""


def about(check: Callable[[str], None]) -> Callable[[], None]:
    """Make one test that checks every entry, and names the one that is wrong."""

    def test() -> None:
        for name in ANSWERS:
            try:
                check(name)
            except (AssertionError, DispatcherError, SyntaxError) as error:
                raise AssertionError(f"[{name}] {error}") from error

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test


def test_answers_are_many_short_and_different() -> None:
    """There are enough about using llmdispatcher, each for itself, in plain ASCII."""
    assert len(ANSWERS.keys() - SELF) >= FEWEST
    assert ANSWERS.keys() >= SELF
    assert len(set(ANSWERS.values())) == len(ANSWERS)
    for name, answer in ANSWERS.items():
        assert answer.isascii(), name
        assert 0 < len(answer) <= LONGEST, name


@about
def test_commands_and_options_are_there(name: str) -> None:
    """A command that is named exists, and so do its options, or else those of ask.

    A configuration is named with options of ask, whatever its own commands take.
    """
    answer = ANSWERS[name]
    named = set()
    for first, second in re.findall(r"(?<!from )\bllmdispatcher (\w+)(?: (\w+))?", answer):
        if f"{first} {second}" in parsers():
            named.add(f"{first} {second}")
        elif first in parsers():
            assert first != "config", f"config {second!r} is no command"
            named.add(first)
        else:
            assert first in AFTER_THE_NAME, f"llmdispatcher {first!r} is no command"

    is_of_ask = not named or any(each.startswith("config ") for each in named)
    known = frozenset().union(*map(options, named | {"ask"} if is_of_ask else named))
    said = re.findall(r"(?<!\S)(--?[A-Za-z][\w-]*)", re.sub(r"python -m|pip .*", " ", answer))
    assert set(said) <= known


@about
def test_names_are_there(name: str) -> None:
    """A word that looks like a name of the program, of an error or of a variable is one."""
    if name in SELF:
        return
    text = ANSWERS[name]
    for source in calls(text):  # another test looks into these
        text = text.replace(source, " ")
    text = without(text)
    known, prose = vocabulary()

    for word in re.findall(r"(?<![\w-])[A-Za-z][\w-]*", text):
        looks = "_" in word or re.search(r"[a-z][A-Z]|[A-Z]{2}", word)
        assert not looks or word in prose, word
    for word in re.findall(r"\b([A-Z]\w*)(?=:\s)", text):
        assert word in known | HEADS | PRODUCTS | METAVARS, word
    for word in re.findall(r"(?<=[a-z,] )([A-Z][\w-]*)", text):
        assert word in prose, word


@about
def test_attributes_are_there(name: str) -> None:
    """What stands behind ``d.``, ``reply.`` and the like is an attribute of that."""
    for owner, attribute in re.findall(
        r"((?:\b[A-Za-z]\w*(?:\.decision(?=\.))?)?)\.([a-z_]{2,})\b", without(ANSWERS[name])
    ):
        if owner not in {"llmdispatcher", "asyncio"}:
            assert owner in OWNERS, f"{owner}.{attribute}"
            assert attribute in OWNERS[owner], f"{owner}.{attribute}"


@about
def test_calls_take_these_arguments(name: str) -> None:
    """Python in an answer compiles, and what is called takes the arguments that it is given."""
    answer = ANSWERS[name]
    if program := snippet(answer):
        compile(program, name, "exec")
    for source in calls(answer):
        for part in ast.walk(ast.parse(source, mode="eval")):
            if isinstance(part, ast.Call):
                _takes(part)
            elif isinstance(part, ast.Name):
                owned = METAVARS | MEANT | frozenset(llmdispatcher.__all__)
                assert part.id in owned | {"print"}, part.id


def _takes(call: ast.Call) -> None:
    called, taken = ast.unparse(call.func), {each.arg for each in call.keywords}
    owner, _, method = called.rpartition(".")
    if called == "print":
        return
    target = {"d": Dispatcher, "stream": Stream, "": llmdispatcher}.get(owner)
    target = getattr(llmdispatcher, owner) if target is None else target
    kind = getattr(target, method)
    known = inspect.signature(kind).parameters
    if any(each.kind is each.VAR_KEYWORD for each in known.values()):
        assert taken <= known.keys() | keywords(), called
    else:
        assert taken <= known.keys(), called


@about
def test_what_can_be_made_is_made(name: str) -> None:
    """A value that an answer makes, with arguments that are all there, can be made."""
    stand_ins: dict[str, Any] = {"N": 1000, "URL": "http://127.0.0.1:9", "NAME": "a-model"}
    space = {each: getattr(llmdispatcher, each) for each in llmdispatcher.__all__}
    for source in calls(ANSWERS[name]):
        names = {each.id for each in ast.walk(ast.parse(source)) if isinstance(each, ast.Name)}
        is_whole = "..." not in source and not names & MEANT and "from_config" not in source
        if is_whole and names <= space.keys() | stand_ins.keys():
            made = eval(source, space | stand_ins)  # noqa: S307 - an expression of our own file
            if isinstance(made, Dispatcher):
                made.close()


@about
def test_settings_are_accepted(name: str) -> None:
    """``name=value`` outside of a call is a setting with a value that somebody takes."""
    answer = ANSWERS[name]
    for source in calls(answer):
        answer = answer.replace(source, " ")
    for field, said in re.findall(r"\b([a-z_]+)=(\"[^\"]*\"|[\w.]*)", answer):
        assert field in keywords(), field
        if said in METAVARS | {""}:
            continue
        value = ast.literal_eval(said)
        if field in Options.__annotations__:
            _requested(field, value)
        elif field in members(LlamaCpp):
            LlamaCpp("model.gguf", **{field: value})
        else:
            raise AssertionError(f"{field}={said} is said of neither a request nor a model")


def _requested(field: str, value: object) -> None:
    with Dispatcher(llmdispatcher.Scripted("Hello.")) as d:
        d.explain("Hi", **{field: value})  # type: ignore[arg-type]


@about
def test_quoted_words_are_known(name: str) -> None:
    """A single word in quotes is the name of a strategy, a step and the like, or an example's."""
    quoted = re.findall(r"\"([a-z_]+)\"", ANSWERS[name])
    known = values() | SHOWN | frozenset(discovery.names())

    assert set(quoted) <= known


@about
def test_models_of_clouds_are_in_the_catalogue(name: str) -> None:
    """A cloud's model that is named is one that the catalogue knows."""
    catalogue = (ROOT / "models" / "catalog.yaml").read_text(encoding="utf-8")
    for model in re.findall(r"models=\[\"([^\"]+)\"\]", ANSWERS[name]):
        assert f"/{model}:" in catalogue


@about
def test_chat_commands_are_there(name: str) -> None:
    """A slash command or a key is one that the chat's own help tells, /help among them."""
    said = re.findall(r"(?<!\S)/[a-z]+\b(?!/)|\bCtrl-[A-Z]", ANSWERS[name])

    assert all(each in chat.HELP for each in said)


def test_lists_are_whole() -> None:
    """Answers that list what there is leave nothing out: commands, presets, steps, exit codes."""
    told = {name: set(re.findall(r"[a-z_]+|\d+", answer)) for name, answer in ANSWERS.items()}

    assert cli.COMMANDS.keys() <= told["help"]
    assert set(presets.presets()) <= told["presets"]
    assert set(WAYS) <= told["ensemble"]
    assert set(ROLES) <= told["chain"]
    assert set(re.findall(r"\d+", ANSWERS["exit_codes"])) | {"141"} == set(
        re.findall(r"^ +(\d+) ", cli.EXIT_CODES, re.MULTILINE)
    )
    assert members(Stats) - {"cost_microusd"} <= told["stats"]


def test_numbers_are_so() -> None:
    """Defaults and requirements that are told in figures are those of the program."""
    about_it = project()
    extras = about_it["optional-dependencies"]

    assert f"Python {about_it['requires-python'].removeprefix('>=')}" in ANSWERS["python_version"]
    assert about_it["license"] in ANSWERS["licence"]
    assert {"llamacpp", "prebuilt"} <= extras.keys()
    assert set(re.findall(r"'\.\[(\w+)\]'", " ".join(ANSWERS.values()))) <= extras.keys()
    assert f"up to {DEFAULT_PARALLEL} replies" in ANSWERS["concurrency"]
    assert f"after {BreakerPolicy().failures} failures" in ANSWERS["breaker"]
    assert FILE in ANSWERS["config_init"]
