"""The pure parts of the engine: sampler chains and chat templates."""

from __future__ import annotations

import pytest

from llmdispatcher import (
    Sampling,
    Unsupported,
    assistant,
    system,
    user,
)
from llmdispatcher.vendors.llamacpp.engine.sampling import Link, chain
from llmdispatcher.vendors.llamacpp.templates.template import PLAIN_STOPS, ChatTemplate

CHAT = [system("S"), user("U"), assistant("A"), user("V")]


def names(sampling: Sampling) -> list[str]:
    """Return the samplers of a request, in order."""
    return [link.name for link in chain(sampling, 1)]


def test_the_default_chain_is_llama_cpps_without_the_neutral_ones() -> None:
    """Nothing given: top-k 40, top-p 0.95, min-p 0.05, temperature 0.8, draw."""
    assert chain(Sampling(), 7) == (
        Link("top_k", (40,)),
        Link("top_p", (0.95,)),
        Link("min_p", (0.05,)),
        Link("temp", (0.8,)),
        Link("dist", (7,)),
    )


def test_zero_temperature_is_greedy_and_keeps_only_what_changes_logits() -> None:
    """At temperature 0 the likeliest token is taken, after penalties."""
    assert names(Sampling(temperature=0, top_k=5, top_p=0.1)) == ["greedy"]
    assert names(Sampling(temperature=0, repeat_penalty=1.1)) == ["penalties", "greedy"]


def test_everything_on_is_in_llama_servers_order() -> None:
    """Penalties, DRY, top-k, typical, top-p, min-p, XTC, temperature, draw."""
    everything = Sampling(
        repeat_penalty=1.1, dry_multiplier=0.8, typical_p=0.9, xtc_probability=0.5, temperature=0.7
    )

    assert names(everything) == [
        *("penalties", "dry", "top_k", "typical", "top_p"),
        *("min_p", "xtc", "temp", "dist"),
    ]


def test_neutral_samplers_are_left_out() -> None:
    """A sampler that would change nothing is not run over the vocabulary."""
    neutral = Sampling(
        temperature=1,
        top_k=0,
        top_p=1,
        min_p=0,
        typical_p=1,
        xtc_probability=0.5,
        xtc_threshold=0.6,
        repeat_penalty=1.2,
        repeat_last_n=0,
    )

    assert names(neutral) == ["dist"]


def test_no_tools_are_no_list() -> None:
    """Templates test ``if tools``; without tools it is not there, as in llama-server."""
    assert ChatTemplate("{{ tools is defined }}").render(CHAT) == "False"


def test_the_usual_template_features_work() -> None:
    """Block trimming, loop controls, namespaces, dates and raise_exception are there."""
    source = """{% for m in messages %}
    {% if m.role == 'system' %}{% continue %}{% endif %}
[{{ m.role }}:{{ m.content }}]{{ '' }}
{% endfor %}
{{ strftime_now('%Y') | length }}"""

    assert ChatTemplate(source).render(CHAT) == "[user:S\nU]\n[assistant:A]\n[user:V]\n4"


def test_json_is_written_without_html_escapes() -> None:
    """Models were trained on plain JSON, where < is written as itself."""
    template = ChatTemplate("{{ {'a': '<b> & é'} | tojson }}|{{ [1] | tojson(indent=2) }}")

    assert template.render(CHAT) == '{"a": "<b> & é"}|[\n  1\n]'


def test_the_plain_format_is_a_transcript() -> None:
    """Without a template, turns are written as a transcript that the model continues."""
    template = ChatTemplate(None)

    assert template.render(CHAT) == "S\nUser: U\nAssistant: A\nUser: V\nAssistant:"
    assert template.stops == PLAIN_STOPS
    assert template.warning


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'a': 1}) }}",
        "{{ ''.__class__ }}{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ range(10000000) | list }}",
        "{% include 'etc/passwd' %}",
        "{{ undefined_function() }}",
        "{{ 'x' * 10 ** 15 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 1 // 0 }}",
    ],
)
def test_a_hostile_template_gets_nowhere(source: str) -> None:
    """The sandbox keeps templates away from Python, files and our own values."""
    with pytest.raises(Unsupported, match="chat template"):
        ChatTemplate(source).render(CHAT)
