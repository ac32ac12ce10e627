"""Where a stranger's template is compiled and runs: jinja2's immutable sandbox, made narrower.

A template reaches its values, the filters and tests of ``filters.py``, its own macros and five
functions. Other files, blocks, recursive loops and whatever cannot be paid for are not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from llmdispatcher.vendors.llamacpp.templates import filters
from llmdispatcher.vendors.llamacpp.templates.effort import CALL_STEPS, Effort, refuse
from llmdispatcher.vendors.llamacpp.templates.filters import (
    EMPTY,
    LIST_METHODS,
    TEXT_METHODS,
    Filters,
    Made,
)

MAX_SOURCE = 200_000
"""Characters of a template: ten times the longest that is known."""
MAX_FORM = 100
"""Characters of a date and of its format, as llama.cpp has it."""
NODES_PER_STEP = 8
"""Parts of the syntax tree that are gone over in the time of one step."""

REFUSALS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What a template can raise: its own refusals, and whatever its expressions run into."""

_ABSENT = (
    *(nodes.Block, nodes.Extends, nodes.FromImport, nodes.Import, nodes.Include),
    *(nodes.EvalContextModifier, nodes.ScopedEvalContextModifier),
)
DICT_METHODS = frozenset({"get", "items", "keys", "values"})
"""What can be called on a dict; any other name is a key."""


class Generation(Extension):
    """The block that marks what an assistant says, for training; to us it is what is in it."""

    tags = {"generation"}  # noqa: RUF012 - as the base class has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Take the block apart."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment for one template; ``effort`` is to be refilled before each rendering."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        """Keep what is known to be bounded."""
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constants are worked out while rendering, where effort is counted
            extensions=["jinja2.ext.loopcontrols", Generation],
        )
        self.effort = Effort()
        self._own = Filters(self, self.effort)
        self.filters, self.tests = self._own.table(), self._own.tests()
        self.finalize = self._shown
        self.globals = {
            "dict": dict,
            "namespace": Namespace,
            "raise_exception": refuse,
            "range": safe_range,
            "strftime_now": _now,
        }
        self._functions = frozenset(self.globals.values())
        self._weights: dict[str, int] = {}

    def compile_bounded(self, source: str) -> jinja2.Template:
        """Compile a template. Raises one of REFUSALS."""
        if len(source) > MAX_SOURCE:
            refuse(f"it has {len(source):,} characters, and {MAX_SOURCE:,} are allowed")
        tree = self.parse(source)
        for unwanted in tree.find_all(_ABSENT):
            refuse(f"{type(unwanted).__name__} is not available")
        for macro in tree.find_all((nodes.Macro, nodes.CallBlock)):
            name = getattr(macro, "name", "caller")
            self._weights[name] = max(self._weights.get(name, 0), _weight(macro))
        return self.from_string(_Payments().visit(tree))

    def concat(self, parts: Iterable[str]) -> str:
        """Put the pieces of a template, macro or block together."""
        return self._own.concat(parts)

    def _shown(self, value: Any) -> str:  # noqa: ANN401 - whatever a template writes
        return value if type(value) is str else self._own.text(value)

    def getattr(self, obj: Any, attribute: str) -> Any:  # noqa: ANN401 - whatever is there
        """Look an attribute up: of a dict an item, of a text what can be paid for."""
        kind = type(obj)
        if kind is dict:
            found = (
                getattr(obj, attribute) if attribute in DICT_METHODS else obj.get(attribute, self)
            )
            return self.undefined(obj=obj, name=attribute) if found is self else found
        if attribute.startswith("_"):
            refuse(f"the attribute {attribute} is not available")
        if kind is LoopContext or kind is Namespace:
            found = getattr(obj, attribute, self)
            return self.undefined(obj=obj, name=attribute) if found is self else found
        if obj is None or isinstance(obj, Undefined):
            return _Nothing(EMPTY[attribute]) if attribute in EMPTY else self.undefined(obj=obj)
        methods = TEXT_METHODS if isinstance(obj, str) else LIST_METHODS if kind is Made else ()
        if isinstance(obj, str) or attribute in methods:
            known = attribute in methods
            return getattr(obj, attribute) if known else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:  # noqa: ANN401 - whatever is there
        """Look an item up."""
        if type(obj) is dict and type(argument) is str:
            return obj[argument] if argument in obj else self.getattr(obj, argument)
        if isinstance(obj, str | Undefined) and isinstance(argument, str):
            return self.getattr(obj, argument)
        if isinstance(obj, Undefined):
            return obj
        return super().getitem(obj, argument)

    def call(
        __self,  # noqa: N805 - as the base class has it: any keyword may be an argument
        __context: Context,  # noqa: PYI063 - as above
        __obj: Any,  # noqa: ANN401
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401 - whatever it returns
        """Call what may be called: macros, our functions, and methods of texts and dicts."""
        effort, owner = __self.effort, getattr(__obj, "__self__", None)
        if owner is not None:
            kwargs.pop("_loop_vars", None)  # what jinja2 tells each function about its caller
            kwargs.pop("_block_vars", None)
        if isinstance(owner, str):
            return __self._own.method(owner, __obj.__name__, args, kwargs)
        if type(owner) is dict:
            effort.spend(1)
            return __obj(*args, **kwargs)
        if type(owner) is Made:
            return __self._own.change(owner, __obj.__name__, args)
        if type(__obj) is _Nothing:
            return __obj.value
        if type(__obj) is Macro:
            effort.spend(CALL_STEPS + __self._weights.get(__obj.name, 1))
            if __obj.catch_varargs or __obj.catch_kwargs:
                effort.weigh((args, kwargs))
        elif not isinstance(__obj, Undefined) and __obj not in __self._functions:
            refuse(f"{type(__obj).__name__} is nothing that a template may call")
        found = __context.call(__obj, *args, **kwargs)
        if __obj is dict:
            effort.weigh(found)
        return found

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401
        """Carry an operation out if its result is of bounded size."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            refuse(f"{operator} on {type(left).__name__} is not available")
        self._own.multiply(left, right)
        return super().call_binop(context, operator, left, right)


class _Nothing:
    """A method of what is not there."""

    def __init__(self, value: object) -> None:
        self.value = value


class _Payments(NodeTransformer):
    """Writes into a syntax tree what each part has to pay for itself."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - jinja2 looks for the name
        if node.recursive:
            refuse("a recursive loop is not available")
        steps = nodes.Const(1 + _weight(node))
        self.generic_visit(node)
        node.iter = _paid(filters.ROUNDS, node.iter, steps)
        return node

    def visit_Add(self, node: nodes.Add) -> nodes.Node:  # noqa: N802 - jinja2 looks for the name
        self.generic_visit(node)
        return _paid(filters.ADD, node.left, node.right)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - jinja2 looks for the name
        self.generic_visit(node)
        return _paid(filters.JOIN, *node.nodes)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802 - jinja2 looks for the name
        self.generic_visit(node)
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        searching = any(operand.op in {"in", "notin"} for operand in node.ops)
        if searching or not any(isinstance(side, nodes.Const) for side in sides):
            node.expr = _weighed(node.expr)
            for operand in node.ops:
                operand.expr = _weighed(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802 - jinja2 looks for the name
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _paid(filters.SLICE, node.node)
        return node

    def visit_List(self, node: nodes.List | nodes.Tuple | nodes.Dict) -> nodes.Node:  # noqa: N802 - jinja2 looks for the name
        self.generic_visit(node)
        empty = isinstance(node, nodes.List) and not node.items  # one that is to be filled
        if (_is_constant(node) and not empty) or getattr(node, "ctx", "load") != "load":
            return node
        return _paid(filters.LITERAL, node)

    visit_Tuple = visit_Dict = visit_List  # noqa: N815 - names that jinja2 looks for


def _paid(name: str, first: Any, *others: nodes.Expr) -> nodes.Filter:  # noqa: ANN401 - jinja2 calls an expression a node
    return nodes.Filter(first, name, list(others), [], None, None, lineno=first.lineno)


def _weighed(node: nodes.Expr) -> nodes.Expr:
    return node if _is_constant(node) else _paid(filters.WEIGH, node)


def _is_constant(node: nodes.Node) -> bool:
    """Say whether all of a literal is in the template's source, which is bounded."""
    if isinstance(node, nodes.List | nodes.Tuple | nodes.Dict | nodes.Pair):
        return all(_is_constant(part) for part in node.iter_child_nodes())
    return isinstance(node, nodes.Const)


def _weight(node: nodes.Node) -> int:
    """Return the steps that going over a part of the tree once takes."""
    return sum(1 for _ in node.find_all(nodes.Node)) // NODES_PER_STEP


def _now(form: str) -> str:
    """Write the local time. Widths, which could be of any size, are not available."""
    if len(form) > MAX_FORM or re.search(r"%[-_0^#+]*\d", form):
        refuse(f"the format of a date has at most {MAX_FORM} characters and no widths")
    return datetime.now().astimezone().strftime(form)
