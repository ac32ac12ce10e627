"""Chat templates in the way of each family, and tiny models of random weights that have them.

They are short and of our own writing: each shows calls as its family's models write them, which is
what tells how to read and to demand calls. A model knows the family's markers as control tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from call_forms import BAR
from tiny_gguf import FEWEST_TOKENS, tiny_model

FIRST_CONTROL = FEWEST_TOKENS + 29
"""Behind the bytes and the letters, so that any text can be written."""

_TURNS = (
    "{%- if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}"
    "HOW<|im_end|>\n{% endif %}"
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}THOUGHT{% endif %}{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}{% set f = c.function %}CALL{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\nOPENED{% endif %}"
)
_THOUGHT = "<think>\n{{ m.reasoning_content }}\n</think>\n\n"
_SWITCH = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"


def _template(how: str, call: str, *, opened: str = "", thought: str = "") -> str:
    parts = {"HOW": how, "CALL": call, "OPENED": opened, "THOUGHT": thought}
    text = _TURNS
    for name, part in parts.items():
        text = text.replace(name, part)
    return text


def _deepseek(what: str) -> str:
    return f"<{BAR}tool\u2581{what}{BAR}>"


_JSON = '{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}'
_HERMES = f"<tool_call>\n{_JSON}\n</tool_call>"
_CODER = (
    "<tool_call>\n<function={{ f.name }}>\n{% for k, v in f.arguments.items() %}"
    "<parameter={{ k }}>\n{{ v if v is string else v | tojson }}\n</parameter>\n{% endfor %}"
    "</function>\n</tool_call>"
)
_LLAMA_HOW = 'Answer with {"name": function name, "parameters": arguments}.'
_LLAMA = '{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}'
_MISTRAL = "[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}"
_MISTRAL_JSON = (
    '[TOOL_CALLS][{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }},'
    ' "id": "{{ c.id }}"}]'
)
_DEEPSEEK = (
    _deepseek("calls\u2581begin")
    + _deepseek("call\u2581begin")
    + "{{ f.name }}"
    + _deepseek("sep")
    + "{{ f.arguments | tojson }}"
    + _deepseek("call\u2581end")
    + _deepseek("calls\u2581end")
)
_HARMONY = (
    "{%- if tools %}<|start|>developer<|message|>{% for t in tools %}{{ t | tojson }}\n"
    "{% endfor %}<|end|>{% endif %}"
    "{%- for m in messages %}{% if m.role == 'tool' %}"
    "<|start|>functions.{{ m.name or 'tool' }} to=assistant<|channel|>commentary"
    "<|message|>{{ m.content }}<|end|>"
    "{% elif m.tool_calls %}{% for c in m.tool_calls %}"
    "<|start|>assistant<|channel|>commentary to=functions.{{ c.function.name }}"
    " <|constrain|>json<|message|>{{ c.function.arguments | tojson }}<|call|>{% endfor %}"
    "{% elif m.role == 'assistant' %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
_CHANNELS = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>", "<|call|>", "<|return|>")


@attrs.frozen(kw_only=True)
class Family:
    """A template, and what of it are control tokens; ``<|end|>`` of harmony is one of those."""

    name: str
    """As it is called among the ways of writing that are known."""
    template: str
    control: tuple[str, ...] = ()
    parallel: bool = True
    """Whether a reply may hold several calls."""
    marked: bool = True
    """Whether a call has a marker, so that it is enforced when the model begins one by itself."""

    def model(self, path: Path, *, control: bool = True, **fields: Any) -> Path:
        """Write a model of this family; without ``control`` its markers are text as any other."""
        marks = ("<|im_start|>", "<|im_end|>", *self.control) if control else ()
        shape = {
            "vocab": FIRST_CONTROL + 64,
            "context": 2048,
            "chat_template": self.template,
            "control": dict(enumerate(marks, FIRST_CONTROL)),
        }
        return tiny_model(path, **{**shape, **fields})


FAMILIES = [
    Family(
        name="Hermes",
        template=_template("Call as in <tool_call>{}</tool_call>.", _HERMES),
        control=("<tool_call>", "</tool_call>"),
    ),
    Family(name="Llama 3", template=_template(_LLAMA_HOW, _LLAMA), parallel=False, marked=False),
    Family(
        name="Mistral",
        template=_template("", _MISTRAL),
        control=("[TOOL_CALLS]", "[ARGS]"),
    ),
    Family(
        name="Mistral JSON",
        template=_template("", _MISTRAL_JSON),
        control=("[TOOL_CALLS]",),
    ),
    Family(
        name="Qwen3-Coder XML",
        template=_template("Call as in <tool_call>.", _CODER),
        control=("<tool_call>", "</tool_call>"),
    ),
    Family(
        name="DeepSeek V3.1",
        template=_template("", _DEEPSEEK),
        control=tuple(
            map(
                _deepseek,
                ("calls\u2581begin", "call\u2581begin", "sep", "call\u2581end", "calls\u2581end"),
            )
        ),
    ),
    Family(
        name="harmony",
        template=_HARMONY,
        control=(*_CHANNELS, "<|end|>"),
        parallel=False,
        marked=False,
    ),
    Family(
        name="generic JSON",
        template="{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        marked=False,
    ),
]
"""One for each way of writing calls that differs in more than its markers."""

_MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")

THINKS = Family(
    name="thinks if it likes",
    template=_template(
        "Call as in <tool_call>.",
        _HERMES,
        opened=_SWITCH + "{% endif %}",
        thought=_THOUGHT,
    ),
    control=_MARKS,
)
"""Has a switch, and leaves it to the model to open its reasoning."""

OPENED = Family(
    name="thinks always",
    template=_template(
        "Call as in <tool_call>.",
        _HERMES,
        opened=_SWITCH + "{% else %}<think>\n{% endif %}",
        thought=_THOUGHT,
    ),
    control=_MARKS,
)
"""Has a switch; unless it is off, the prompt ends inside an opened block."""
