"""What chat templates can say, and what it may cost: the language that they are written in."""

from __future__ import annotations

import threading

import pytest

from llmdispatcher.models.errors import Unsupported
from llmdispatcher.models.message import assistant, user
from llmdispatcher.vendors.llamacpp.templates.effort import MAX_EFFORT
from llmdispatcher.vendors.llamacpp.templates.template import ChatTemplate

SIMPLE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"


def test_a_template_may_fill_a_list_of_its_own() -> None:
    """Lists that it makes can grow and shrink; lists that it is given cannot."""
    source = (
        "{% set ns = namespace(ids=[]) %}{% for m in messages %}"
        "{% set _ = ns.ids.append(m.content) %}{% endfor %}{{ ns.ids.pop(0) }}{{ ns.ids }}"
    )

    assert ChatTemplate(source).render([user("U"), user("V's")]) == 'U["V\'s"]'
    with pytest.raises(Unsupported):
        ChatTemplate("{{ messages.pop() }}").render([user("U")])


def test_what_is_not_there_is_empty() -> None:
    """As in llama.cpp, parts of what is not there are not there, and add nothing to a text."""
    source = (
        "{{ nothing.at.all }}{{ nothing['x'][0] }}{% for a in nothing.items() %}a{% endfor %}"
        "{{ 'b' + nothing }}{{ nothing ~ 'c' }}{{ none|default('d') }}{{ nothing|tojson }}"
    )

    assert ChatTemplate(source).render([user("U")]) == "bcdnull"


def test_the_usual_filters_and_methods_work() -> None:
    """What templates really use, comes out as the transformers library has it."""
    source = (
        "{{ ' a b '|trim }}|{{ 'a,b'.split(',')[1] }}|{{ ['x', 'y']|join('-') }}"
        "|{{ {'b': 1, 'a': 2}|dictsort }}|{{ 'ab'|replace('a', 'c')|upper }}"
        "|{{ '{}={}'.format('k', 1) }}|{{ [{'n': 1}, {'n': 2}]|map(attribute='n')|list }}"
        "|{{ messages|selectattr('role', 'eq', 'user')|list|length }}"
        "|{{ 'x\ny'|indent(2) }}|{{ {'é': [1, none, true]}|tojson }}|{{ 'abc'[::-1] }}"
        "|{{ '7'|int + 1 }}|{{ [3, 1, 2]|sort|first }}|{{ 'a' in 'abc' }}"
        "|{{ messages[0] is mapping }}|{{ 7 % 4 }}"
        "{% generation %}|{{ 'g' }}{% endgeneration %}"
    )
    wanted = (
        "a b|b|x-y|[('a', 2), ('b', 1)]|CB|k=1|[1, 2]|1|x\n  y"
        '|{"é": [1, null, true]}|cba|8|1|True|True|3|g'
    )

    assert ChatTemplate(source).render([user("U")]) == wanted


def test_python_is_out_of_reach() -> None:
    """Names that begin with an underscore are refused."""
    for source in ("{{ ''.__class__ }}", "{{ raise_exception.__globals__ }}", "{{ x._y }}"):
        with pytest.raises(Unsupported, match="is not available"):
            ChatTemplate(source).render([user("U")])


def test_each_rendering_has_its_own_effort() -> None:
    """What one has spent, or a hostile trial at compiling, is not missing in the next."""
    source = (
        "{% if messages[0].content != 'U' %}{% for i in range(90000) %}{% for j in range(90000) %}"
        "{% endfor %}{% endfor %}{% endif %}{% for m in messages %}{{ loop.index }}{% endfor %}"
    )
    template = ChatTemplate(source)

    with pytest.raises(Unsupported, match=f"{MAX_EFFORT:,} steps"):
        template.render([user("loop")])
    assert template.render([user("U"), user("V")]) == "12"


def test_a_long_conversation_is_no_effort() -> None:
    """Hundreds of long turns are rendered."""
    turns = [user("question " * 100), assistant("answer " * 500)] * 500

    assert len(ChatTemplate(SIMPLE).render([*turns, user("U")])) > 2_000_000


def test_a_template_is_rendered_in_a_thread_as_well() -> None:
    """Endless recursion ends there, too, with the program alive."""
    told: list[str] = []

    def run() -> None:
        source = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"
        try:
            ChatTemplate(source).render([user("U")])
        except Unsupported as error:
            told.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)

    assert "recursion" in told[0]
