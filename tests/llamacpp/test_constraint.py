"""Constraints: what a model may write next, whatever it is asked to write."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import gguf
import numpy as np
import pytest
from exact_gguf import EMBEDDED
from held import Held, fits, rule
from tiny_gguf import tiny_model

from llmdispatcher.models.errors import BadReply, InvalidGrammar
from llmdispatcher.models.sampling import Sampling
from llmdispatcher.vendors.llamacpp.rules.constraint import MAX_COMPILED
from llmdispatcher.vendors.llamacpp.rules.rules import ANY_JSON, Kind, Rule, embedded

GREEDY = Sampling(temperature=0)
FREE = Sampling(temperature=1, top_k=0, top_p=1, min_p=0, seed=1)

STEP_S = 30.0
"""Liveness: the engine's own limits end a step after about a tenth of a second."""


@pytest.fixture(scope="module")
def held() -> Iterator[Held]:
    """The embedded model."""
    with Held(EMBEDDED) as found:
        yield found


def judged(held: Held, asked: dict[str, Any] | str | Rule, text: str) -> bool | None:
    """Whether text is a whole reply; None if it could become one."""
    wanted = asked if isinstance(asked, Rule) else rule(asked)
    return fits(held.grammars.constraint(wanted), held.bytes_of(text))


def test_replies_have_the_shape_that_was_asked_for(held: Held) -> None:
    """A schema shows in what a model writes, greedily and by chance."""
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 20}, "size": {"enum": [1, 2]}},
        "required": ["capital", "size"],
        "additionalProperties": False,
    }
    for sampling in (GREEDY, FREE, Sampling(repeat_penalty=1.3, dry_multiplier=0.8, seed=3)):
        text, ended = held.reply(rule(schema), sampling)
        assert ended
        found = json.loads(text)
        assert list(found) == ["capital", "size"]
        assert found["size"] in {1, 2}


def test_a_seed_repeats_a_reply(held: Held) -> None:
    """Draws that are thrown away take their random numbers the same way each time."""
    wild = attrs.evolve(FREE, temperature=10)  # else a model that is sure repeats itself anyway
    texts = [held.reply(ANY_JSON, wild, most=60) for _ in range(3)]
    others = (attrs.evolve(wild, seed=seed) for seed in range(2, 12))

    assert texts[0] == texts[1] == texts[2]
    assert any(held.reply(ANY_JSON, other, most=60) != texts[0] for other in others)


def test_a_rule_that_fits_changes_nothing(held: Held) -> None:
    """Where the model keeps to the rule by itself, it writes what it would have written."""
    anything = rule("root ::= .*")
    # of all tokens one in thousands is a mark or half a letter by chance, which no text can hold
    likely = attrs.evolve(FREE, min_p=0.02)
    for sampling in (GREEDY, likely, Sampling(repeat_penalty=1.3, seed=4)):
        text, _ = held.reply(anything, sampling, most=40)
        free, _ = held.reply(None, sampling, most=40)
        assert text == free


WHOLE: list[tuple[Any, str, bool | None]] = [
    ({"type": "integer"}, "12", True),
    ({"type": "integer"}, "-", None),
    ({"type": "integer"}, "1.0", False),
    ({"type": "object"}, '{"a": 1, "b":[ ]}', True),
    ({"type": "object"}, '{\n  "a": 1\n}', True),
    ({"type": "object"}, '{  "a"', False),
    ({"type": "object"}, '{\n\n"a"', False),
    ({"type": "object"}, "{\n" + " " * 21, False),
    ({"type": "object"}, " {", False),
    ({"type": "object"}, "{} ", False),
    ({"type": "object"}, '{"a": "\\u0061"}', False),
    ({"type": "object"}, '{"a": "\\n\\"é😀"}', True),
    ({"type": "object"}, '{"a": "\n"}', False),
    ({"type": "object", "properties": {"a": {"type": "null"}}}, '{"\\u0061": 1}', False),
    ({"type": "object", "properties": {"a\n": {"type": "null"}}}, '{"a\\n": null}', True),
    ({"type": "object", "properties": {"a\n": {"type": "null"}}}, '{"a\\u000a": 1}', False),
    ({"type": "string", "pattern": "^[^a]$"}, '"\\u0061"', False),
    ({"type": "string", "pattern": "^.$"}, '"\\n"', False),
    ({"type": "string", "pattern": "b$"}, '"a\\nb"', True),
    ({"type": "string", "maxLength": 1}, '"😀"', True),
    ({"enum": ["a", "ab"]}, '"ab"', True),
    ({"enum": ["a", "ab"]}, '"abc"', False),
    ({"const": {"b": 1, "a": [True, None]}}, '{"b": 1, "a": [true, null]}', True),
    ({"const": 2**53}, "9007199254740992", True),
    ({"const": 2**53 - 1}, "9007199254740992", False),
    ({"const": -0.5}, "-0.5", True),
    ({"type": "array", "items": {"$ref": "#"}}, "[[], [[]]]", True),
    (ANY_JSON, '[1, "x", {"y": null}]', True),
    (ANY_JSON, '"text"', False),
    ('root ::= "a"+ "b"', "aaab", True),
    ("root ::= [a-c]{2,3}", "ab", True),
    ("root ::= [a-c]{2,3}", "a", None),
    ("root ::= [^a]", "é", True),
    ('root ::= "ab" "c" | "abc" "d"', "abc", True),
    ('root ::= "ab" "c" | "abc" "d"', "abcd", True),
    ("root ::= [a]* [a]* [b]", "aaab", True),
    ('root ::= root "a" | "b"', "baaa", True),
    ('root ::= "a" root | ""', "aaa", True),
    ('root ::= ("a" | "b" (root | "c"))* "d"{0}', "abbca", True),
    ("root ::= .", "\n", True),
    ('root ::= ""', "", True),
]


@pytest.mark.parametrize(("asked", "text", "whole"), WHOLE)
def test_texts_fit_rules(held: Held, asked: Any, text: str, whole: bool | None) -> None:  # noqa: FBT001 - parametrized
    """These texts fit, fit so far, or do not; single checks and masks agree at every token."""
    assert judged(held, asked, text) is whole


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"allOf": [{"type": "integer"}, {"type": "string"}]}, "incompatible types"),
        ({"type": "integer", "minimum": 0.5, "maximum": 0.7}, "no integer values"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"patternProperties": {"^a": {}, "^ab": {}}}, "disjoint"),
        ({"type": "string", "pattern": "^a$", "minLength": 2}, "schema"),
        ("root ::= <none>", "which the model does not have"),
        ("root ::= <[999999]>", "which the model does not have"),
        (Rule(Kind.LARK, "start: ("), "lark"),
        (Rule(Kind.LARK, ""), "lark"),
        (Rule(Kind.LARK, "start: \0"), "NUL"),
        (Rule(Kind.LARK, 'start: "a" start'), None),
        (Rule(Kind.LARK, "start: " + "(" * 100_000), "deeply nested"),
        (Rule(Kind.LARK, "start: <tool_that_is_not_there>"), "unknown special token"),
        (Rule(Kind.SCHEMA, "not JSON"), "schema"),
    ],
)
def test_what_the_engine_cannot_carry_out_is_refused(
    held: Held, asked: Any, told: str | None
) -> None:
    """What only the engine finds out is an InvalidGrammar too, in bounded time."""
    began = time.monotonic()
    wanted = asked if isinstance(asked, Rule) else rule(asked)
    if told is not None:
        with pytest.raises(InvalidGrammar, match=told):
            held.grammars.constraint(wanted)
    else:
        held.grammars.constraint(wanted).close()
    assert time.monotonic() - began < STEP_S


BOMBS: list[tuple[Any, str]] = [
    ({"type": "string", "pattern": "^((a{1,99}){1,99}){1,99}$"}, '"' + "a" * 400),
    ({"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"}, '"' + "ab " * 300),
    ({"type": "string", "pattern": "(a|aa)+$", "maxLength": 1000}, '"' + "a" * 400),
    ({"type": "string", "pattern": "^(a|b)*a(a|b){30}$"}, '"' + "aabab" * 100),
    ({"type": "array", "maxItems": 1000, "minItems": 900, "items": {}}, "[" + "[" * 400),
    ({"type": "string", "minLength": 999_999}, '"' + "a" * 400),
    ({"multipleOf": 9973}, "9" * 300),
    ("root ::= [a]* [a]* [a]* [a]* [b]", "a" * 400),
    ("root ::= ([a]{0,2000}){0,2000}", "a" * 400),
    ('root ::= s\ns ::= s s | "a" | ""', "a" * 90),
    ('root ::= (("a"*)*)*', "a" * 90),
    ('root ::= s\ns ::= "a" s "b" | "a" s "c" | ""', "a" * 200 + "bc" * 100),
    ('root ::= "a" x\nx ::= y | "b"\ny ::= "a" root', "a" * 400),
    (
        "\n".join(f"r{i} ::= r{i + 1} r{i + 1}" for i in range(40)) + '\nr40 ::= "a"?\nroot ::= r0',
        "a",
    ),
    ("root ::= " + " | ".join(f"[{chr(0x4E00 + i)}]" for i in range(5000)), chr(0x4E01)),
    ("root ::= " + " | ".join(f'"a{chr(0x4E00 + i)}"' for i in range(5000)), "a"),
]


@pytest.mark.parametrize(("asked", "text"), BOMBS)
def test_rules_that_explode_end_in_an_error(held: Held, asked: Any, text: str) -> None:
    """A rule that takes too much is an error of its reply; no step of it takes long."""
    began = time.monotonic()
    try:
        constraint = held.grammars.constraint(rule(asked))
    except InvalidGrammar:
        constraint = None
    assert time.monotonic() - began < STEP_S
    for token in held.bytes_of(text):
        began = time.monotonic()
        try:
            if constraint is None or not constraint.allows(token):
                break
            constraint.mask()
            constraint.accept(token)
        except BadReply as error:
            assert "takes too much" in str(error)  # noqa: PT017 - either end is right
            break
        assert time.monotonic() - began < STEP_S


def test_nothing_is_printed_and_the_process_lives() -> None:
    """Whatever the engine runs into, it says so in the error alone."""
    folder = str(Path(__file__).parent.parent)
    code = f"""
import sys
sys.path[:0] = [{folder!r}, {folder + "/llamacpp"!r}]
import test_constraint as here
from held import Held
with Held(here.EMBEDDED) as held:
    for asked, text in here.BOMBS:
        here.test_rules_that_explode_end_in_an_error(held, asked, text)
    for rule in ("start: (", "start: <none>", "start: /a{{99999}}{{99999}}/", "start: %json {{"):
        try:
            held.grammars.constraint(here.Rule("lark", rule))
        except here.InvalidGrammar:
            pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_compiled_rules_are_kept_and_bounded(held: Held) -> None:
    """A rule is compiled once while it is in use, copies go their own ways, and few are kept."""
    wanted = rule({"type": "boolean"})
    first, second = held.grammars.constraint(wanted), held.grammars.constraint(wanted)
    first.accept(held.bytes_of("t")[0])
    third = first.copy()
    first.accept(held.bytes_of("r")[0])

    assert [c.allows(held.bytes_of("r")[0]) for c in (first, second, third)] == [0, 0, 1]
    for number in range(2 * MAX_COMPILED):
        held.grammars.constraint(rule({"const": number}))
    assert len(held.grammars._kept) == MAX_COMPILED


def test_a_closed_constraint_says_so(held: Held) -> None:
    """What is closed is not asked any more; closing twice is closing."""
    constraint = held.grammars.constraint(ANY_JSON)
    constraint.close()
    constraint.close()

    with pytest.raises(BadReply, match="closed"):
        constraint.allows(5)


def test_tokens_that_do_not_fit_are_errors_and_not_aborts(held: Held) -> None:
    """An unchecked token, or none of the vocabulary, is refused in Python."""
    constraint = held.grammars.constraint(rule({"type": "boolean"}))

    assert not constraint.allows(-1)
    assert not constraint.allows(10**6)
    with pytest.raises(BadReply, match="ends before"):
        constraint.accept(constraint._tokens.ends[0])
    with pytest.raises(BadReply, match="not what it must look like"):
        constraint.copy().accept(held.bytes_of("x")[0])


def vocabulary(path: Path, kinds: Mapping[str, int], end: str) -> Path:
    """Write a model with further tokens, of which one ends a reply."""
    extra = {"tokenizer.ggml.eot_token_id": 259 + list(kinds).index(end)}
    writer = gguf.GGUFWriter
    added = writer.add_token_list, writer.add_token_types, writer.add_token_scores

    def change(method: Any, last: list[Any]) -> Any:
        return lambda self, values: method(self, [*values[:259], *last])

    with pytest.MonkeyPatch.context() as patch:
        texts = [text.encode() for text in kinds]
        patch.setattr(writer, "add_token_list", change(added[0], texts))
        patch.setattr(writer, "add_token_types", change(added[1], list(kinds.values())))
        patch.setattr(writer, "add_token_scores", change(added[2], [0.0] * len(kinds)))
        return tiny_model(path, vocab=259 + len(kinds), metadata=extra, context=512)


CONTROL, USER, NORMAL = gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED, gguf.TokenType.NORMAL
KINDS = {"<|end|>": CONTROL, "<call>": CONTROL, "<tool>": USER, "  ": USER, "<p>": NORMAL}


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    """A model with marks among its tokens, and two that end a reply."""
    path = tmp_path_factory.mktemp("models") / "marked.gguf"
    with Held(vocabulary(path, KINDS, "<|end|>")) as found:
        yield found


def test_marks_are_named_and_are_no_text(marked: Held) -> None:
    """Control tokens match by name alone, and so do user-defined ones that look like them."""
    tokens = {text: 259 + index for index, text in enumerate(KINDS)}
    anything = marked.grammars.constraint(Rule(Kind.LARK, r"start: /(.|\n)*/"))
    named = marked.grammars.constraint(
        Rule(Kind.LARK, f"start: <call> body <tool>\nbody: {embedded({'const': 1})}")
    )
    by_gbnf = marked.grammars.constraint(rule('root ::= <call> "1" <[261]> !<call>'))

    allowed = [text for text, token in tokens.items() if anything.allows(token)]
    assert allowed == ["<|end|>", "  ", "<p>"]  # the first ends it
    for constraint in (named, by_gbnf):
        for token in (tokens["<call>"], marked.bytes_of("1")[0], tokens["<tool>"]):
            assert np.flatnonzero(constraint.mask()).tolist() == [token]
            constraint.accept(token)
    assert named.ending is not None
    assert by_gbnf.ending is None
    assert not by_gbnf.allows(tokens["<call>"])
    assert by_gbnf.allows(tokens["<p>"])
    assert not marked.grammars.constraint(rule('root ::= "<call>"')).allows(tokens["<call>"])


def test_every_end_token_ends_a_reply_where_it_may_end(marked: Held) -> None:
    """All tokens that end a reply are allowed where the rule may end, and nowhere else."""
    constraint = marked.grammars.constraint(rule('root ::= "a" "b"?'))
    ends = constraint._tokens.ends

    assert len(ends) == 2
    assert not any(constraint.allows(end) for end in ends)
    constraint.accept(marked.bytes_of("a")[0])
    assert all(constraint.allows(end) for end in ends)
    assert constraint.mask()[ends].all()
    seen = [constraint.ending]
    constraint.accept(marked.bytes_of("b")[0])
    assert [*seen, constraint.ending] == [None, ends[0]]
    assert np.flatnonzero(constraint.mask()).tolist() == ends
    constraint.accept(ends[1])


def test_a_reply_that_can_only_end_needs_no_scores(marked: Held) -> None:
    """A sampler ends a complete reply without a decoded row."""
    constraint = marked.grammars.constraint(rule('root ::= "a"'))
    constraint.accept(marked.bytes_of("a")[0])
    sampler = marked.samplers.made((), (), constraint)

    assert marked.backend.ends(sampler.sample(10**6))
    sampler.close()
    with pytest.raises(BadReply, match="closed"):
        constraint.allows(1)


@pytest.mark.parametrize("lark", ["start: A\nA: /a/ & /b/", 'start: "a" & "b"'])
def test_a_grammar_that_nothing_fits_is_refused(held: Held, lark: str) -> None:
    """A rule that cannot be begun is refused before a reply is."""
    with pytest.raises(InvalidGrammar):
        held.grammars.constraint(Rule(Kind.LARK, lark))
