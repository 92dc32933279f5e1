"""Mathematical answers: expressions, sets, intervals and equations, as keys that are the same for equal ones.

An expression is evaluated: exactly where it is rational, else as a complex number; one with variables at
fixed points, which tells different expressions apart as good as surely (Schwartz, JACM 27, 1980). A computer
algebra system simplifies instead, for which no bound of time is known; here, the length of the text bounds
the work.
"""

from __future__ import annotations

import cmath
import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from orchestration.patterns.consensus.numbers import in_ascii, settled, written

MAX_CHARS = 300
"""Of an expression that is evaluated; a longer one is compared as text."""
_MAX_DEPTH = 24
_MAX_BITS = 2_048
"""Of an exact number; beyond, it is a floating one."""
_MAX_FACTORIAL = 100
_MAX_BOTTOM = 10**30
_MAX_DIGITS = 40
_DIGITS = 9
"""Digits in which floating values are the same."""
_POINTS = (0.7310585786, 1.3195079108, 2.2360679775)

Value = Fraction | complex

_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|bigl?|bigr?|Bigl?|Bigr?|limits|quad|qquad|[,;:!> ])|[$]|\\\(|"
    r"\\\)|"
    r"\\\[|\\\]|~|°|\^\s*\{?\s*\\circ\s*\}?|\\circ|\\degree"
)
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|operatorname|mbox|rm)\s*\{([^{}]*)\}")
_COMMANDS = {
    "dfrac": r"\frac",
    "tfrac": r"\frac",
    "cfrac": r"\frac",
    "cdot": "*",
    "times": "*",
    "div": "/",
    "pi": " pi ",
    "infty": " infinity ",
    "cup": " U ",
    "pm": " ± ",
    "mp": " ± ",
    "lbrace": "⟨",
    "rbrace": "⟩",
    "leq": "≤",
    "geq": "≥",
    "le": "≤",
    "ge": "≥",
}
_COMMAND = re.compile(rf"\\({'|'.join(sorted(_COMMANDS, key=len, reverse=True))})(?![A-Za-z])")
_SPELT = (
    ("×", "*"),
    ("·", "*"),
    ("⋅", "*"),
    ("÷", "/"),
    ("−", "-"),
    ("–", "-"),
    ("π", " pi "),
    ("∞", " infinity "),
    ("∪", " U "),
    (r"\{", "⟨"),
    (r"\}", "⟩"),
    (r"\%", "%"),
    ("<=", "≤"),
    (">=", "≥"),
    ("**", "^"),
    ("²", "^2"),
    ("³", "^3"),
    ("{,}", ","),
)
_UNIT = re.compile(
    r"(?<=[\d})])\s*(?:\\[ ,;!])*\\(?:text|mathrm|mbox)\s*\{\s*(?!and\b|"
    r"or\b)[^{}]*\}(?:\s*\^\s*\{?[23]\}?)?\s*\$?\s*\Z|"
    r"(?<=[\d})])\s*\b(?:square |cubic |sq\.? )?(?:mm|cm|km|kg|mg|ml|ft|feet|inch(?:es)?|met(?:er|re)s?|"
    r"units?|degrees?|hours?|minutes?|seconds?|dollars?|cents?|mph|hz|years?|days?|grams?|people|ways)"
    r"(?:\s*\^\s*\{?[23]\}?)?\s*\Z",
    re.IGNORECASE,
)
_NAMED = re.compile(r"^\s*[A-Za-z](?:_\{?\w+\}?)?(?:\([a-z]\))?\s*(?:=|\\in\b|∈|:=)\s*(?=\S)")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d)")
_TOKEN = re.compile(
    r"\s*(?:((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3}(?![\w.]))?)|\\?([A-Za-z]+)|(.))", re.DOTALL
)
_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin,
    "cos": cmath.cos,
    "tan": cmath.tan,
    "sec": lambda x: 1 / cmath.cos(x),
    "csc": lambda x: 1 / cmath.sin(x),
    "cot": lambda x: 1 / cmath.tan(x),
    "arcsin": cmath.asin,
    "arccos": cmath.acos,
    "arctan": cmath.atan,
    "asin": cmath.asin,
    "acos": cmath.acos,
    "atan": cmath.atan,
    "sinh": cmath.sinh,
    "cosh": cmath.cosh,
    "tanh": cmath.tanh,
    "ln": cmath.log,
    "exp": cmath.exp,
    "abs": abs,
}
_CONSTANTS: dict[str, Value] = {"pi": complex(math.pi), "e": complex(math.e), "i": 1j}
_OTHERS = frozenset({"sqrt", "frac", "log", "binom", "max", "min", "gcd", "lcm", "infinity"})


class Unreadable(Exception):
    """What is no expression."""


def math_key(said: str) -> str | None:
    """The key of a mathematical answer; None where it is none: then its text has to do."""
    text = _normal(said)
    if not text or len(text) > MAX_CHARS:
        return None
    try:
        return _answer(text)
    except (Unreadable, ValueError, ZeroDivisionError, OverflowError, RecursionError):
        return None


def looks_mathematical(said: str) -> bool:
    """Whether a short text is written as mathematics, and not as words."""
    if len(said) > MAX_CHARS:
        return False
    if re.search(r"\\(?:d?frac|sqrt|pi|cup|infty|binom|pm|log|ln|sin|cos)\b|[√π∞∪]", said):
        return True
    bare = _normal(said)
    words = [word for word in re.findall(r"[A-Za-z]{2,}", bare) if word not in _FUNCTIONS | _CONSTANTS.keys()]
    words = [word for word in words if word not in _OTHERS]
    return not words and bool(re.search(r"[\d^+*/=(\[]|^[A-Za-z]$", bare))


def _normal(said: str) -> str:
    if len(said) > 4 * MAX_CHARS:
        return ""
    text = in_ascii(said).strip().strip("`").rstrip(".")
    text = _UNIT.sub("", text)
    text = _WRAPPED.sub(r" \1 ", text)
    text = _COMMAND.sub(lambda match: _COMMANDS[match[1]], text)
    for spelt, plain in _SPELT:
        text = text.replace(spelt, plain)
    text = _DROPPED.sub(" ", text)
    text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    text = " ".join(text.split())
    while (named := _NAMED.match(text)) is not None:
        text = text[named.end() :]
    return text.strip()


def _answer(text: str) -> str:
    """A union of intervals, a set, a tuple, a list, an equation, or one expression."""
    if " U " in text:
        return "U".join(sorted(_answer(part.strip()) for part in text.split(" U ")))
    if text.startswith("⟨") and text.endswith("⟩"):
        return "{" + ",".join(sorted(_values(_split(text[1:-1])))) + "}"
    if text[0] in "([" and text[-1] in ")]" and _closes(text) == len(text) - 1:
        parts = _split(text[1:-1])
        if len(parts) > 1:
            return text[0] + ",".join(_one(part) for part in parts) + text[-1]
    parts = _split(re.sub(r"\s*,?\s+\b(?:and|or|und|oder|et|ou)\b\s+", ", ", text))
    if len(parts) > 1:
        tuples = all(part[:1] in "([" for part in parts)
        found = [_answer(part) for part in parts] if tuples else _values(parts)
        return "{" + ",".join(sorted(found)) + "}"
    found = _values(parts)
    return found[0] if len(found) == 1 else "{" + ",".join(sorted(found)) + "}"


def _values(parts: Sequence[str]) -> list[str]:
    """Of each part, without its name; `±` makes two of one."""
    found: list[str] = []
    for part in parts:
        part = _NAMED.sub("", part)
        both = [part.replace("±", sign, 1) for sign in "+-"] if "±" in part else [part]
        found += [_one(each.replace("±", "+")) for each in both]
    return list(dict.fromkeys(found))


def _one(part: str) -> str:
    bare = part.strip()
    if not bare:
        raise Unreadable
    if re.fullmatch(r"[-+]?\s*infinity", bare):
        return bare.replace(" ", "").lstrip("+")
    based = re.fullmatch(r"(-?[\dA-F]+)\s*_\s*\{?\s*(\d+|[a-z]+)\s*\}?", bare)
    if based:
        return based[1].lower()
    for sign in ("≤", "≥", "<", ">"):
        if sign in bare:
            sides = [_one(side) for side in bare.split(sign)]
            if sign in ("≥", ">"):
                sides.reverse()
            return ("≤" if sign in "≤≥" else "<").join(sides)
    sides = bare.split("=")
    if len(sides) == 2:
        return _equation(*sides)
    if len(sides) > 2:
        raise Unreadable
    values = _at_points(bare)
    return _key(values)


def _equation(left: str, right: str) -> str:
    """Of an equation: the difference of its sides, but for a factor."""
    sides = [_at_points(left), _at_points(right)]
    if len(sides[0]) == len(sides[1]) == 1:
        return _one(right)
    many = max(map(len, sides))
    one, other = (side * many if len(side) == 1 else side for side in sides)
    difference = [complex(each) - complex(against) for each, against in zip(one, other, strict=True)]
    first = difference[0]
    if abs(first) < 1e-12:
        raise Unreadable
    return "0=" + _key([each / first for each in difference])


def _at_points(text: str) -> list[Value]:
    parser = _Parser(text, 0)
    value = parser.whole()
    if not parser.variables:
        return [value]
    return [_Parser(text, point).whole() for point in range(len(_POINTS))]


def _key(values: Sequence[Value]) -> str:
    return ";".join(_number(value) for value in values)


def _number(value: Value) -> str:
    if isinstance(value, Fraction):
        return (
            _shortened(written(settled(value)))
            if value.denominator < _MAX_BOTTOM
            else f"~{float(value):.{_DIGITS}g}"
        )
    real, imaginary = value.real, value.imag
    if not (math.isfinite(real) and math.isfinite(imaginary)):
        raise Unreadable
    scale = max(abs(real), abs(imaginary), 1e-300)
    if abs(imaginary) < 1e-10 * scale:
        return _floating(real)
    return f"{_floating(real if abs(real) > 1e-10 * scale else 0.0)}+{_floating(imaginary)}i"


def _shortened(digits: str) -> str:
    """A long whole number by its beginning and its length."""
    return digits if len(digits) <= _MAX_DIGITS else f"{digits[:_MAX_DIGITS]}e{len(digits) - _MAX_DIGITS}"


def _floating(value: float) -> str:
    if abs(value - round(value)) < 1e-10 * max(1.0, abs(value)) and abs(value) < 1e15:
        return str(round(value))
    return f"~{value:.{_DIGITS}g}"


def _split(text: str) -> list[str]:
    """At commas and semicolons that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        if char in "([{⟨":
            depth += 1
        elif char in ")]}⟩":
            depth -= 1
        elif char in ",;" and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    parts.append(text[start:].strip())
    return [part for part in parts if part] or [""]


def _closes(text: str) -> int:
    depth = 0
    for at, char in enumerate(text):
        depth += (char in "([") - (char in ")]")
        if depth == 0:
            return at
    return -1


class _Parser:
    """Evaluates one expression by recursive descent; `point` chooses the values of variables."""

    def __init__(self, text: str, point: int) -> None:
        self.tokens: list[tuple[str, str, str]] = [
            (number, name, sign)
            for number, name, sign in _TOKEN.findall(text)
            if number or name or sign.strip()
        ]
        self.at = 0
        self.depth = 0
        self.point = point
        self.variables: set[str] = set()
        self.bars = 0

    def whole(self) -> Value:
        value = self._sum()
        if self.at != len(self.tokens):
            raise Unreadable
        return value

    def _peek(self) -> str:
        if self.at >= len(self.tokens):
            return ""
        return next(part for part in self.tokens[self.at] if part)

    def _take(self, *wanted: str) -> bool:
        if self._peek() in wanted and self.at < len(self.tokens):
            self.at += 1
            return True
        return False

    def _sum(self) -> Value:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise Unreadable
        value = self._product()
        while (sign := self._peek()) in ("+", "-") and sign:
            self.at += 1
            other = self._product()
            value = _add(value, other if sign == "+" else _negative(other))
        self.depth -= 1
        return value

    def _product(self) -> Value:
        value = self._signed()
        while True:
            if self._take("*"):
                value = _multiply(value, self._signed())
            elif self._take("/"):
                value = _divide(value, self._signed())
            elif self._begins_factor():
                value = self._beside(value)
            else:
                return value

    def _beside(self, value: Value) -> Value:
        """What stands beside a value is a factor, but for the fraction of a mixed number, `3\\frac{1}{2}`."""
        mixed = self._peek() == "frac" and self.at > 0 and self.tokens[self.at - 1][0].isdigit()
        number = self.tokens[self.at][0]
        if number and self.at > 0 and self.tokens[self.at - 1][0]:
            if self.at + 2 < len(self.tokens) and self.tokens[self.at + 1][2] == "/":  # 1 1/2
                return _add(value, self._fraction_beside())
            raise Unreadable
        other = self._power()
        if mixed and isinstance(value, Fraction) and isinstance(other, Fraction) and 0 < other < 1:
            return value + other if value >= 0 else value - other
        return _multiply(value, other)

    def _fraction_beside(self) -> Value:
        top = self._power()
        self._take("/")
        return _divide(top, self._power())

    def _begins_factor(self) -> bool:
        if self.at >= len(self.tokens):
            return False
        number, name, sign = self.tokens[self.at]
        return bool(number or name or sign in ("(", "[", "{", "√") or (sign == "|" and not self.bars))

    def _signed(self) -> Value:
        negative = False
        while (sign := self._peek()) in ("+", "-") and sign:
            negative ^= sign == "-"
            self.at += 1
        value = self._power()
        return _negative(value) if negative else value

    def _power(self) -> Value:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise Unreadable
        value = self._postfix(self._atom())
        if self._take("^"):
            value = _power(value, self._signed())
            value = self._postfix(value)
        self.depth -= 1
        return value

    def _postfix(self, value: Value) -> Value:
        while True:
            if self._take("!"):
                value = _factorial(value)
            elif self._take("%"):
                value = _divide(value, Fraction(100))
            else:
                return value

    def _atom(self) -> Value:
        if self.at >= len(self.tokens):
            raise Unreadable
        number, name, sign = self.tokens[self.at]
        self.at += 1
        if number:
            return _bounded(Fraction(number.rstrip(".") or "0"))
        if name:
            return self._name(name)
        if sign == "√":
            return _power(self._atom(), Fraction(1, 2))
        if sign == "|" and not self.bars:
            self.bars += 1
            value = self._sum()
            self._expect("|")
            self.bars -= 1
            return abs(value) if isinstance(value, Fraction) else complex(abs(value))
        closing = {"(": ")", "[": "]", "{": "}"}.get(sign)
        if closing is None:
            raise Unreadable
        value = self._sum()
        self._expect(closing)
        return value

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise Unreadable

    def _name(self, name: str) -> Value:
        if name == "frac":
            return _divide(self._argument(), self._argument())
        if name == "binom":
            return _choose(self._argument(), self._argument())
        if name == "sqrt":
            return self._root()
        if name == "log":
            base: Value = self._argument() if self._take("_") else Fraction(10)
            return _divide(cmath.log(complex(self._argument())), cmath.log(complex(base)))
        if name in _FUNCTIONS:
            return self._function(name)
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        if len(name) == 1 or name in ("alpha", "beta", "gamma", "theta", "phi", "lambda", "mu", "omega"):
            return self._variable(name)
        if len(name) <= 3 and name.isalpha() and name.islower():  # `ab` is a product
            value: Value = Fraction(1)
            for letter in name:
                value = _multiply(value, _CONSTANTS.get(letter) or self._variable(letter))
            return value
        raise Unreadable

    def _variable(self, name: str) -> Value:
        if self._take("_"):
            name += self._peek()
            self._argument()
        self.variables.add(name)
        seed = sum((at + 1) * ord(char) for at, char in enumerate(name))
        return complex(_POINTS[self.point] + 0.1 * (seed % 97) * (1 + 0.01 * self.point))

    def _function(self, name: str) -> Value:
        power: Value | None = self._argument() if self._take("^") else None
        value: Value = complex(_FUNCTIONS[name](complex(self._argument())))
        return _power(value, power) if power is not None else value

    def _root(self) -> Value:
        degree: Value = Fraction(2)
        if self._take("["):
            degree = self._sum()
            self._expect("]")
        return _power(self._argument(), _divide(Fraction(1), degree))

    def _argument(self) -> Value:
        """In braces or brackets, else one digit, letter or power, as in `\\frac12` and `\\sin x`."""
        if self.at < len(self.tokens):
            number = self.tokens[self.at][0]
            before = self.tokens[self.at - 1][1] if self.at else ""
            if (
                len(number) > 1
                and number.isdigit()
                and before not in _FUNCTIONS
                and before not in ("sqrt", "log")
            ):
                self.tokens[self.at : self.at + 1] = [(digit, "", "") for digit in number]
        return self._power() if self._peek() not in ("{",) else self._atom()


def _add(one: Value, other: Value) -> Value:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return _bounded(one + other)
    return complex(one) + complex(other)


def _negative(value: Value) -> Value:
    return -value


def _multiply(one: Value, other: Value) -> Value:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return _bounded(one * other)
    return complex(one) * complex(other)


def _divide(one: Value, other: Value) -> Value:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return _bounded(one / other)
    return complex(one) / complex(other)


def _bounded(value: Fraction) -> Value:
    bits = value.numerator.bit_length() + value.denominator.bit_length()
    return value if bits <= _MAX_BITS else complex(float(value))


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        if exponent.denominator == 1:
            bits = base.numerator.bit_length() + base.denominator.bit_length()
            if abs(exponent) * bits <= _MAX_BITS:
                return base**exponent.numerator
        elif base > 0 and exponent.denominator <= 16:
            exact = _exact_root(base, exponent.denominator)
            if exact is not None:
                return _power(exact, Fraction(exponent.numerator))
        elif base < 0 and exponent.denominator % 2 == 1 and exponent.denominator <= 16:
            value = _power(-base, exponent)
            return -value if exponent.numerator % 2 else value
    return complex(base) ** complex(exponent)


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    roots = []
    for whole in (value.numerator, value.denominator):
        if whole.bit_length() > 512:
            return None
        root = round(whole ** (1 / degree)) if degree != 2 else math.isqrt(whole)
        if root**degree != whole:
            return None
        roots.append(root)
    return Fraction(roots[0], roots[1])


def _factorial(value: Value) -> Value:
    if isinstance(value, Fraction) and value.denominator == 1 and 0 <= value <= _MAX_FACTORIAL:
        return _bounded(Fraction(math.factorial(value.numerator)))
    raise Unreadable


def _choose(one: Value, other: Value) -> Value:
    if (
        isinstance(one, Fraction)
        and isinstance(other, Fraction)
        and one.denominator == other.denominator == 1
        and 0 <= other <= one <= 10 * _MAX_FACTORIAL
    ):
        return _bounded(Fraction(math.comb(one.numerator, other.numerator)))
    raise Unreadable
