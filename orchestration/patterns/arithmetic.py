"""An exact calculator for expressions as people and models write them.

All values are fractions, so 0.1 + 0.2 is 0.3. Irrational roots have 50 digits.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable
from decimal import Context, Decimal, DecimalException
from fractions import Fraction

MAX_CHARACTERS = 400
MAX_PARTS = 120
MAX_BITS = 8_192
"""Maximum bits of a numerator or denominator: some 2,400 digits."""
_MAX_EXPONENT = 4_096
_MAX_FACTORIAL = 500
_PRECISE = Context(prec=50)
_SHOWN_DIGITS = 12

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_PERCENT = re.compile(r"(\d|\))\s*%(?!\s*[\d(.$€£])")
_TIMES = re.compile(r"(?<=[\d)%])\s*[xX]\s*(?=[\d(.$€£-])")
_ROOT = re.compile(r"√\s*(\d+(?:\.\d+)?)?")
_LATEX = re.compile(r"\\(times|cdot|div)\b")
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "**"} | dict.fromkeys("$€£"))


class NotArithmetic(ValueError):
    """The expression cannot be parsed, is too large, or has no value; the message says which."""


def evaluate(text: str) -> Fraction:
    """The value of `1,234.5 × (2 + 3)`, `15% of 80`, `2^10`, `7 % 3`, `sqrt(2)`, `round(2.5, 1)`, `√9`.

    A `%` before a number or a parenthesis is the remainder, any other a percentage. Raises `NotArithmetic`.
    """
    if len(text) > MAX_CHARACTERS:
        raise NotArithmetic(f"an expression of {len(text)} characters exceeds {MAX_CHARACTERS}")
    source = _THOUSANDS.sub("", _TIMES.sub("*", text.strip())).translate(_SIGNS)
    source = _LATEX.sub(lambda match: "/" if match[1] == "div" else "*", source)
    source = _ROOT.sub(lambda match: f"sqrt({match[1]})" if match[1] else "sqrt", source)
    source = re.sub(r"\bof\b", "*", _PERCENT.sub(r"\1*_percent", source))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers that touch a word
            tree = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NotArithmetic(f"{text.strip()!r} is no arithmetic") from error
    parts = sum(1 for _ in ast.walk(tree))
    if parts > MAX_PARTS:
        raise NotArithmetic(f"an expression of {parts} parts exceeds {MAX_PARTS}")
    return _value(tree, source.strip())


def format_number(value: Fraction) -> str:
    """The value as a whole number, or with at most 12 significant digits."""
    if value.denominator == 1:
        return str(value.numerator)
    context = Context(prec=max(_SHOWN_DIGITS, len(str(int(abs(value))))))
    text = format(context.divide(Decimal(value.numerator), Decimal(value.denominator)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _value(node: ast.expr, source: str) -> Fraction:
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return _literal(node, source)
        case ast.Name(id="_percent"):
            return Fraction(1, 100)
        case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=operand):
            value = _value(operand, source)
            return -value if isinstance(node.op, ast.USub) else value
        case ast.BinOp(left=left, op=op, right=right):
            return _bounded(_applied(op, _value(left, source), _value(right, source)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _bounded(_called(name, [_value(each, source) for each in arguments]))
    raise NotArithmetic(f"{ast.unparse(node)[:40]!r} is no arithmetic")


def _literal(node: ast.Constant, source: str) -> Fraction:
    """The number as it is written: 0.1 is exactly a tenth."""
    written = (ast.get_source_segment(source, node) or "").replace("_", "")
    try:
        number = Decimal(written)
    except DecimalException as error:
        raise NotArithmetic(f"{written[:40]!r} is no decimal number") from error
    if abs(number.adjusted()) > MAX_CHARACTERS:
        raise NotArithmetic(f"{written[:40]} is too large or too small")
    return Fraction(number)


def _applied(op: ast.operator, left: Fraction, right: Fraction) -> Fraction:
    if isinstance(op, ast.Pow):
        return _power(left, right)
    operate = _OPERATORS.get(type(op))
    if operate is None:
        raise NotArithmetic(f"{type(op).__name__} is no operation of arithmetic")
    try:
        return Fraction(operate(left, right))
    except ZeroDivisionError as error:
        raise NotArithmetic("a division by zero has no value") from error


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        return _precise(base, exponent)
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) > _MAX_EXPONENT or size * abs(exponent) > 2 * MAX_BITS:
        raise NotArithmetic("the power is too large")
    if base == 0 and exponent < 0:
        raise NotArithmetic("a division by zero has no value")
    return base ** int(exponent)


def _precise(base: Fraction, exponent: Fraction) -> Fraction:
    if base < 0:
        raise NotArithmetic("a root of a negative number is no real number")
    try:
        return Fraction(_PRECISE.power(_decimal(base), _decimal(exponent)))
    except DecimalException as error:
        raise NotArithmetic("the power is too large or too small") from error


def _decimal(value: Fraction) -> Decimal:
    return _PRECISE.divide(Decimal(value.numerator), Decimal(value.denominator))


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise NotArithmetic("the value is too large")
    return value


def _called(name: str, arguments: list[Fraction]) -> Fraction:
    minimum, maximum, function = _FUNCTIONS[name]
    if not minimum <= len(arguments) <= maximum:
        raise NotArithmetic(f"{name} does not take {len(arguments)} numbers")
    return Fraction(function(*arguments))


def _sqrt(value: Fraction) -> Fraction:
    if value < 0:
        raise NotArithmetic("a root of a negative number is no real number")
    above, below = math.isqrt(value.numerator), math.isqrt(value.denominator)
    if above**2 == value.numerator and below**2 == value.denominator:
        return Fraction(above, below)
    return Fraction(_PRECISE.sqrt(_decimal(value)))


def _round(value: Fraction, digits: Fraction = Fraction(0)) -> Fraction:
    """Rounds halves away from zero, as at school, and not to the even digit."""
    places = _whole(digits)
    if abs(places) > _SHOWN_DIGITS * 2:
        raise NotArithmetic(f"{places} digits are too many to round to")
    scaled = abs(value) * Fraction(10) ** places
    return Fraction(math.floor(scaled + Fraction(1, 2))) / Fraction(10) ** places * (-1 if value < 0 else 1)


def _factorial(value: Fraction) -> int:
    number = _whole(value)
    if not 0 <= number <= _MAX_FACTORIAL:
        raise NotArithmetic(f"a factorial is of a number from 0 to {_MAX_FACTORIAL}")
    return math.factorial(number)


def _whole(value: Fraction) -> int:
    if value.denominator != 1:
        raise NotArithmetic(f"{format_number(value)} is no whole number")
    return value.numerator


_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction | int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: dict[str, tuple[int, int, Callable[..., Fraction | int]]] = {
    "sqrt": (1, 1, _sqrt),
    "abs": (1, 1, abs),
    "round": (1, 2, _round),
    "floor": (1, 1, math.floor),
    "ceil": (1, 1, math.ceil),
    "min": (1, 32, min),
    "max": (1, 32, max),
    "gcd": (2, 2, lambda a, b: math.gcd(_whole(a), _whole(b))),
    "lcm": (2, 2, lambda a, b: math.lcm(_whole(a), _whole(b))),
    "factorial": (1, 1, _factorial),
}
