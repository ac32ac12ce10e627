"""Templates that want more than a prompt: endless time or memory, files, Python itself."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from llmdispatcher.models.errors import Unsupported
from llmdispatcher.models.message import Message, Role, ToolCall, user
from llmdispatcher.vendors.llamacpp.templates import effort
from llmdispatcher.vendors.llamacpp.templates.sandbox import MAX_SOURCE
from llmdispatcher.vendors.llamacpp.templates.template import ChatTemplate

MOST_S = 90.0
MOST_BYTES = 1 << 30

LONG = "{% set s = 'x' * 1000000 %}"
DEEP = (
    "{% set ns = namespace(x=[]) %}"
    "{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
)
BOTH = DEEP + "{% set y = ns.x %}" + DEEP
LOOPS = "{% for i in range(90000) %}{% for j in range(90000) %}"
ENDS = "{% endfor %}{% endfor %}"

HOSTILE = {
    "loops": LOOPS + ENDS,
    "loops with much in them": LOOPS + "{% if i == j %}{{ i }}{% endif %}" * 200 + ENDS,
    "a loop of long text": "{% for i in range(90000) %}" + "x" * 100_000 + "{% endfor %}",
    "a loop of long content": LONG + "{% for i in range(90000) %}{{ s }}{% endfor %}",
    "a loop in a macro": "{% macro m() %}" + LOOPS + "x" + ENDS + "{% endmacro %}{{ m() }}",
    "a loop in a block": "{% set b %}" + LOOPS + "x" + ENDS + "{% endset %}{{ b|length }}",
    "a loop in a filter": "{% filter upper %}" + LOOPS + "x" + ENDS + "{% endfilter %}",
    "a loop that goes into itself": "{% for a in [[1]] recursive %}{{ loop(a) }}{% endfor %}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a macro that calls itself twice": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(90) }}"
    ),
    "two macros that call each other": (
        "{% macro a(n) %}{{ b(n) }}{{ b(n) }}{% endmacro %}"
        "{% macro b(n) %}{% if n %}{{ a(n - 1) }}{{ a(n - 1) }}{% endif %}{% endmacro %}{{ a(60) }}"
    ),
    "a call block that calls on": (
        "{% macro m(n) %}{% if n %}{% call m(n - 1) %}{% endcall %}{% call m(n - 1) %}{% endcall %}"
        "{% endif %}{% endmacro %}{{ m(70) }}"
    ),
    "a text that doubles": "{% set ns = namespace(s='x') %}{% for i in range(99) %}"
    "{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "a text that doubles in a row": "{% set s = 'x' %}" + "{% set s = s ~ s %}" * 99,
    "a list that doubles": "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}"
    "{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "many long texts": LONG + "".join(f"{{% set s{i} = s + '{i}' %}}" for i in range(5000)),
    "lists in lists, written": DEEP + "{{ ns.x }}",
    "lists in lists, as JSON": DEEP + "{{ ns.x|tojson }}",
    "lists in lists, as text": DEEP + "{{ (ns.x|string)|length }}",
    "lists in lists, compared": BOTH + "{{ y == ns.x }}",
    "lists in lists, searched": BOTH + "{{ y in [ns.x] }}",
    "tuples in tuples, as keys": DEEP.replace("[ns.x, ns.x]", "(ns.x, ns.x)") + "{{ {ns.x: 1} }}",
    "a list in itself": "{% set a = [] %}{% set _ = a.append(a) %}{{ a }}",
    "a namespace in itself": "{% set n = namespace() %}{% set n.n = [n] %}{{ [n] }}",
    "varargs in varargs": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1, varargs, varargs) }}{% else %}"
        "{{ varargs }}{% endif %}{% endmacro %}{{ m(60) }}"
    ),
    "a list that grows": (
        "{% set a = [] %}{% for i in range(90000) %}{% set _ = a.append('x' * 9999) %}{% endfor %}"
    ),
    "a power": "{{ 9 ** 9 ** 9 }}",
    "a product": "{{ 999999999999 * 999999999999 }}",
    "a text times a number": "{{ 'x' * 10 ** 12 }}",
    "a number times a list": "{{ 1000000000000 * [0] }}",
    "a long list of lists": DEEP.replace("60", "15") + "{{ ([ns.x] * 9999999)|length }}",
    "a width in a format": "{{ '%1000000000d' % 1 }}",
    "a width in the other format": "{{ '{:1000000000}'.format(1) }}",
    "a width in a format of a map": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "a width in a filter": "{{ '%1000000000d'|format(1) }}",
    "a width in a date": "{{ strftime_now('%1000000000Y') }}",
    "a text in the middle": "{{ 'x'|center(1000000000) }}",
    "a text on the left": "{{ 'x'.ljust(1000000000) }}",
    "a text with noughts": "{{ 'x'.zfill(1000000000) }}",
    "tabs": "{{ '\t'.expandtabs(1000000000) }}",
    "an indent": "{{ 'x\ny'|indent(1000000000) }}",
    "an indent of JSON": "{{ [[]]|tojson(indent=1000000000) }}",
    "a separator of JSON": LONG + "{{ ([0] * 9999)|tojson(separators=[s, s]) }}",
    "a replacement": LONG + "{{ s|replace('x', s)|length }}",
    "a replacement by method": LONG + "{{ s.replace('x', s)|length }}",
    "a joined list": LONG + "{{ ([0] * 1000000)|join(s)|length }}",
    "a joined list by method": LONG + "{{ s.join(['x'] * 1000000)|length }}",
    "a list of long texts, sorted": LONG + "{{ ([s] * 100000)|sort|length }}",
    "a list of long texts, as JSON": LONG + "{{ ([s] * 100000)|tojson|length }}",
    "a long text, searched": LONG + "{% for i in range(90000) %}{{ 'y' in s }}{% endfor %}",
    "a long text, compared": LONG + "{% set t = s + '' %}{% for i in range(90000) %}"
    "{{ s == t }}{% endfor %}",
    "a long text, cut": LONG + "{% for i in range(90000) %}{{ s[1:]|length }}{% endfor %}",
    "a long text, split": LONG + "{% for i in range(90000) %}{{ s.split('x')|length }}{% endfor %}",
    "a long text, trimmed": LONG + "{% for i in range(90000) %}{{ s|trim|length }}{% endfor %}",
    "a long text, repeated": LONG + "{% for i in range(90000) %}{{ (s * 9)|length }}{% endfor %}",
    "a long number": "{{ ('9' * 100000)|int }}",
    "a long number in another base": "{% set n = ('f' * 4000000)|int(0, 16) %}{{ n // 3 }}",
    "a long range": "{{ range(1000000000)|list|length }}",
    "lists of ranges": "{% for i in range(90000) %}{{ range(90000)|list|length }}{% endfor %}",
    "maps of ranges": "{% for i in range(90000) %}{{ range(90000)|map('string')|list|length }}"
    "{% endfor %}",
    "a file": "{% include '/etc/passwd' %}",
    "another template": "{% extends 'base' %}",
    "macros of a file": "{% import 'base' as b %}{{ b.x() }}",
    "a block that calls itself": "{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}",
    "Python's classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "Python's globals": "{{ raise_exception.__globals__ }}",
    "a change of what it was given": "{{ messages.append(1) }}",
    "a change of an item": "{{ messages[0].update({'role': 'x'}) }}",
    "an attribute by filter": "{{ ''|attr('__class__') }}",
    "a function by its name": "{{ messages[0].get.__self__.clear() }}",
    "other escapes": "{% autoescape true %}{{ 'x' * 9 }}{% endautoescape %}{{ 1 / 0 }}",
    "parentheses": "{{ " + "(" * 30_000 + "1" + ")" * 30_000 + " }}",
    "lists of lists": "{{ " + "[" * 30_000 + "]" * 30_000 + " }}",
    "a long sum": "{{ " + "1 + " * 40_000 + "1 }}",
    "many nested ifs": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "many nested loops": "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
    "much of nothing": "{% set a = 1 %}" * 12_000 + "{{ 1 / 0 }}",
    "a long source": "x" * (MAX_SOURCE + 1),
    "what does not end": "{% for a in b %}",
}
"""All end in Unsupported, in bounded time and memory."""

CHAT = [user("U"), Message(Role.ASSISTANT, "A", [ToolCall("1", "f", "{}")]), user("V")]


FEW_STEPS = 200_000


@pytest.mark.sampled(2)
@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_is_refused(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """It is compiled, tried and rendered, and ends in Unsupported; here with less to spend."""
    monkeypatch.setattr(effort, "MAX_EFFORT", FEW_STEPS)

    with pytest.raises(Unsupported, match="the model's chat template"):
        ChatTemplate(source).render(CHAT)


@pytest.mark.parametrize(
    "name", ["loops with much in them", "two macros that call each other", "a namespace in itself"]
)
def test_all_that_may_be_spent_is_spent_in_time(name: str) -> None:
    """These take longest with all there is to spend: a few seconds on an idle machine."""
    began_s = time.thread_time()  # whoever else has the processors meanwhile does not count

    with pytest.raises(Unsupported, match="steps"):
        ChatTemplate(HOSTILE[name]).render(CHAT)

    assert time.thread_time() - began_s < MOST_S


@pytest.mark.parametrize("name", ["many long texts", "a list that doubles", "a list that grows"])
def test_all_that_may_be_spent_is_bounded_memory(name: str) -> None:
    """These hold as much as they can."""
    tracemalloc.start()
    try:
        with pytest.raises(Unsupported):
            ChatTemplate(HOSTILE[name]).render(CHAT)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most_bytes < MOST_BYTES
