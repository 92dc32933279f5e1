"""The value of a mathematical expression: a parser, and bounded arithmetic on fractions and complex ones."""

from __future__ import annotations

import cmath
import math
import re
from collections.abc import Callable
from fractions import Fraction

_MAX_DEPTH = 24
_MAX_BITS = 2_048
"""Maximum bits of an exact number; a larger one becomes a floating one."""
_MAX_FACTORIAL = 100
SAMPLE_POINTS = (0.7310585786, 1.3195079108, 2.2360679775)
Value = Fraction | complex
_TOKEN = re.compile(
    r"\s*(?:((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3}(?![\w.]))?)|\\?([A-Za-z]+)|(.))", re.DOTALL
)
FUNCTIONS: dict[str, Callable[[complex], complex]] = {
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
CONSTANTS: dict[str, Value] = {"pi": complex(math.pi), "e": complex(math.e), "i": 1j}
OTHER_NAMES = frozenset({"sqrt", "frac", "log", "binom", "max", "min", "gcd", "lcm", "infinity"})


class UnreadableExpression(Exception):
    """The text is not an expression."""


class ExpressionParser:
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
            raise UnreadableExpression
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
            raise UnreadableExpression
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
        """The product of a value and what stands beside it; the sum for a mixed number, `3\\frac{1}{2}`."""
        mixed = self._peek() == "frac" and self.at > 0 and self.tokens[self.at - 1][0].isdigit()
        number = self.tokens[self.at][0]
        if number and self.at > 0 and self.tokens[self.at - 1][0]:
            if self.at + 2 < len(self.tokens) and self.tokens[self.at + 1][2] == "/":  # 1 1/2
                return _add(value, self._fraction_beside())
            raise UnreadableExpression
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
            raise UnreadableExpression
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
            raise UnreadableExpression
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
            raise UnreadableExpression
        value = self._sum()
        self._expect(closing)
        return value

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise UnreadableExpression

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
        if name in FUNCTIONS:
            return self._function(name)
        if name in CONSTANTS:
            return CONSTANTS[name]
        if len(name) == 1 or name in ("alpha", "beta", "gamma", "theta", "phi", "lambda", "mu", "omega"):
            return self._variable(name)
        if len(name) <= 3 and name.isalpha() and name.islower():  # `ab` is a product
            value: Value = Fraction(1)
            for letter in name:
                value = _multiply(value, CONSTANTS.get(letter) or self._variable(letter))
            return value
        raise UnreadableExpression

    def _variable(self, name: str) -> Value:
        if self._take("_"):
            name += self._peek()
            self._argument()
        self.variables.add(name)
        seed = sum((at + 1) * ord(char) for at, char in enumerate(name))
        return complex(SAMPLE_POINTS[self.point] + 0.1 * (seed % 97) * (1 + 0.01 * self.point))

    def _function(self, name: str) -> Value:
        power: Value | None = self._argument() if self._take("^") else None
        value: Value = complex(FUNCTIONS[name](complex(self._argument())))
        return _power(value, power) if power is not None else value

    def _root(self) -> Value:
        degree: Value = Fraction(2)
        if self._take("["):
            degree = self._sum()
            self._expect("]")
        return _power(self._argument(), _divide(Fraction(1), degree))

    def _argument(self) -> Value:
        """The argument in braces or brackets, else one digit, letter or power, as in `\\frac12` and `\\sin
        x`."""
        if self.at < len(self.tokens):
            number = self.tokens[self.at][0]
            before = self.tokens[self.at - 1][1] if self.at else ""
            if (
                len(number) > 1
                and number.isdigit()
                and before not in FUNCTIONS
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
    raise UnreadableExpression


def _choose(one: Value, other: Value) -> Value:
    if (
        isinstance(one, Fraction)
        and isinstance(other, Fraction)
        and one.denominator == other.denominator == 1
        and 0 <= other <= one <= 10 * _MAX_FACTORIAL
    ):
        return _bounded(Fraction(math.comb(one.numerator, other.numerator)))
    raise UnreadableExpression
