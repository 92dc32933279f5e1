"""Runs chat templates in Jinja's immutable sandbox, with a budget of steps and of text.

A template comes with a model file, so it is untrusted code inside the node. Jinja's sandbox protects the
interpreter, but neither time nor memory. A deadline in a thread is not enough: `'x' * 10 ** 9` and
`'%999999999d' % 1` run in C and cannot be interrupted (they blocked the process for more than 10 s), padding
by `format` takes 1 GB, and doubling a string reaches 400 MB within a deadline of 1 s. So each loop iteration
and each call is a step, and all text that a template produces is charged to one budget.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sized
from datetime import datetime
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_STEPS = 200_000
"""Maximum loop iterations and calls of one rendering; a template needs a few per message."""

MAX_SOURCE_CHARS = 200_000

_TEXT_CHARS = 1 << 22
_TEXT_FACTOR = 16
"""A rendering may produce `_TEXT_CHARS` characters plus this multiple of the messages' text."""

_LARGEST_NUMBER = 1 << 62

BUDGET = "orchestra_budget"
"""The template variable that holds the `RenderBudget`."""

_COUNTED, _JOINED, _PAID = "orchestra_counted", "orchestra_joined", "orchestra_paid"

_STRING_METHODS = frozenset(
    {
        "capitalize",
        "count",
        "endswith",
        "find",
        "index",
        "isdigit",
        "isspace",
        "join",
        "lower",
        "lstrip",
        "partition",
        "replace",
        "rfind",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "title",
        "upper",
    }
)
_PADDING_FILTERS = (
    "batch",
    "center",
    "filesizeformat",
    "format",
    "indent",
    "pprint",
    "round",
    "slice",
    "urlize",
    "wordwrap",
    "xmlattr",
)


class Refusal(Exception):
    """The template called raise_exception: it does not accept these messages."""


class RenderBudget:
    """The budget of one rendering of messages with `input_chars` characters."""

    def __init__(self, input_chars: int) -> None:
        self.steps = MAX_STEPS
        self.chars = _TEXT_FACTOR * input_chars + _TEXT_CHARS
        self.too_long = SecurityError(f"it makes more than {self.chars} characters of text")

    def step(self, count: int = 1) -> None:
        self.steps -= count
        if self.steps < 0:
            raise SecurityError(f"it takes more than {MAX_STEPS} steps")

    def pay(self, chars: int) -> None:
        self.chars -= chars
        if self.chars < 0:
            raise self.too_long


def _spent(context: Context) -> RenderBudget:
    budget = context.parent.get(BUDGET)
    if not isinstance(budget, RenderBudget):
        raise SecurityError("rendered without a budget")
    return budget


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Compiles chat templates, with the functions that Hugging Face's templates expect."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols"],
            cache_size=0,
            finalize=_paid,
        )
        for name in _PADDING_FILTERS:
            self.filters.pop(name)
        self.filters |= {"tojson": _to_json, "replace": _replace, "join": _join, _PAID: _paid}
        self.globals.pop("lipsum")
        self.globals |= {
            _COUNTED: _counted,
            _JOINED: _joined,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Add code that counts loop iterations and charges joined and captured text."""
        if len(source) > MAX_SOURCE_CHARS:
            raise SecurityError(f"a template of {len(source)} characters; the limit is {MAX_SOURCE_CHARS}")
        template = super()._parse(source, name, filename)
        for loop in template.find_all(nodes.For):
            constant = sum(len(data.data) for data in loop.find_all(nodes.TemplateData))
            loop.iter = _called(_COUNTED, loop.iter, nodes.Const(constant))
        for block in template.find_all(nodes.AssignBlock):
            block.filter = nodes.Filter(block.filter, _PAID, [], [], None, None)
        _without_concat(template)
        template.set_environment(self)
        return template

    def wrap_str_format(self, value: Any) -> None:
        """Return None: `str.format` is checked like any method. Jinja's wrapper would allow padding to any
        width."""
        return

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr not in _STRING_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and isinstance(left, Sized) and isinstance(right, Sized):
            _spent(context).pay(len(left) + len(right))
            return left + right  # type: ignore[operator]
        if not isinstance(left, int | float) or not isinstance(right, int | float):
            raise SecurityError(f"the operator {operator} on these values")
        if operator == "**" and (abs(left) > 1000 or abs(right) > 6):
            raise SecurityError("a power that large")
        result = super().call_binop(context, operator, left, right)
        if abs(result) > _LARGEST_NUMBER:
            raise SecurityError("a number that large")
        return result

    # Names with underscores cannot collide with keyword arguments of a template.
    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget = _spent(__context)
        budget.step()
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str) and args and name == "replace":
            _pay_for_replacing(budget, owner, *args)
        elif isinstance(owner, str) and args and name == "join":
            return _join(__context, args[0], owner)
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, str):
            budget.pay(len(result))
        return result


def _called(function: str, *arguments: Any) -> nodes.Call:
    return nodes.Call(nodes.Name(function, "load"), list(arguments), [], None, None)


def _without_concat(node: nodes.Node) -> Any:
    """`node` with every `a ~ b` replaced by a call that charges the budget."""
    for field, value in node.iter_fields():
        if isinstance(value, list):
            value[:] = [_without_concat(item) if isinstance(item, nodes.Node) else item for item in value]
        elif isinstance(value, nodes.Node):
            setattr(node, field, _without_concat(value))
    return _called(_JOINED, *node.nodes) if isinstance(node, nodes.Concat) else node


@pass_context
def _counted(context: Context, items: Iterable[Any], constant_chars: int) -> Any:
    listed = items if isinstance(items, Sized) and not isinstance(items, str) else list(items or ())
    budget = _spent(context)
    budget.step(len(listed))
    budget.pay(len(listed) * constant_chars)
    return listed


@pass_context
def _joined(context: Context, *items: Any) -> str:
    texts = [str(item) for item in items]
    _spent(context).pay(sum(map(len, texts)))
    return "".join(texts)


@pass_context
def _paid(context: Context, value: Any) -> Any:
    text = value if isinstance(value, str) else str(value)
    _spent(context).pay(len(text))
    return value


@pass_context
def _join(context: Context, items: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        raise SecurityError("join by an attribute")
    texts = [str(item) for item in items]
    _spent(context).pay(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


@pass_context
def _replace(context: Context, text: str, old: str, new: str, count: int = -1) -> str:
    _pay_for_replacing(_spent(context), text, old, new)
    return str(text).replace(old, new, count)


def _pay_for_replacing(budget: RenderBudget, text: str, old: str, new: str, *_: Any) -> None:
    budget.pay(len(text) + str(text).count(old) * len(new))


def _to_json(value: Any, indent: int | None = None, **_options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=None if indent is None else min(indent, 8))


def _raise_exception(message: str) -> None:
    raise Refusal(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(str(pattern)[:100])
