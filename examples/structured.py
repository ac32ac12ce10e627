"""A reply that is a value of a class, and a tool that the model calls and is answered.

The embedded model has never seen a tool; a schema and a demanded call hold any model to the form.
What it writes into it is its own: ask a real model for real numbers.
"""

import json

import attrs

from llmdispatcher import Dispatcher, ToolSpec, tool, user


@attrs.frozen
class Sum:
    """What the first reply must be."""

    a: int
    b: int
    sum: int


NUMBER = {"type": "integer", "minimum": 0, "maximum": 99}
ADD = ToolSpec(
    "add",
    "Adds two numbers.",
    {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"]},
)

with Dispatcher() as d:
    print(d.send("2 + 3 as json", schema=Sum, temperature=0).parsed)

    talk = [user("What is 2 + 3?")]
    asked = d.send(talk, tools=[ADD], tool_choice="required", parallel_tools=False, temperature=0)
    talk.append(asked.message)
    for call in asked.tool_calls:
        arguments = json.loads(call.arguments)
        print(f"{call.name}({arguments})")
        talk.append(tool(call, str(arguments["a"] + arguments["b"])))
    print(d.send(talk, tools=[ADD], tool_choice="none", temperature=0).text)
