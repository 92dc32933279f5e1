from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from actors.engine.text import Detokenizer, StopMatcher, TextStream
from orchestration.messages import TokenLogprob


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """`data` in pieces of `sizes`, repeated."""
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at += size
        turn += 1
    return pieces


SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=6)


@given(text=st.text(), sizes=SIZES)
@example(text="né 🦉 漢字 👩‍👩‍👧 क्षि", sizes=[1])
def test_text_survives_any_cut_of_its_bytes(text: str, sizes: list[int]) -> None:
    text = text.encode("utf-8", "replace").decode()
    detokenizer = Detokenizer()
    pieces = [detokenizer.push(part) for part in cut(text.encode(), sizes)]
    assert "".join(pieces) == text
    assert detokenizer.flush() == ""


@given(data=st.binary(), sizes=SIZES)
def test_broken_bytes_become_what_a_lenient_decoder_makes_of_them(data: bytes, sizes: list[int]) -> None:
    detokenizer = Detokenizer()
    text = "".join(detokenizer.push(part) for part in cut(data, sizes)) + detokenizer.flush()
    assert text == data.decode("utf-8", "replace")


def expected(text: str, stops: list[str]) -> tuple[str, bool]:
    """By definition: the first character that completes a stop string ends the text."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


@given(
    text=st.text(alphabet="ab\n", max_size=40),
    stops=st.lists(st.text(alphabet="ab\n", max_size=5), max_size=4),
    sizes=SIZES,
)
@example(text="aab", stops=["ab"], sizes=[2])
@example(text="abc", stops=["abcd", "b"], sizes=[1])
def test_stop_strings_are_found_however_the_text_is_cut(
    text: str, stops: list[str], sizes: list[int]
) -> None:
    matcher = StopMatcher(stops)
    out, stopped = "", False
    for part in cut(text.encode(), sizes):
        piece, stopped = matcher.push(part.decode())
        out += piece
        if stopped:
            break
    else:
        out += matcher.flush()
    assert (out, stopped) == expected(text, stops)


def test_text_that_cannot_become_a_stop_string_is_not_held_back() -> None:
    matcher = StopMatcher(["###"])
    assert matcher.push("one #") == ("one ", False)
    assert matcher.push("# two") == ("## two", False)


def test_tokens_held_back_leave_with_their_text_and_their_logprobs() -> None:
    stream = TextStream(["END"])
    owl = "🦉".encode()

    def told(number: int) -> TokenLogprob:
        return TokenLogprob(token=str(number), logprob=-float(number))

    assert stream.push(owl[:2], told(1)) is None
    piece = stream.push(owl[2:], told(2))
    assert piece is not None
    assert (piece.text, piece.tokens) == ("🦉", 2)
    assert [each.token for each in piece.logprobs or ()] == ["1", "2"]
    assert stream.push(b"E", told(3)) is None
    rest = stream.flush()
    assert rest is not None
    assert (rest.text, rest.tokens) == ("E", 1)


def test_a_stop_string_and_what_follows_it_never_leave() -> None:
    stream = TextStream(["END"])
    piece = stream.push(b"all E")
    assert piece is not None
    assert piece.text == "all "
    assert stream.push(b"ND and more") is None
    assert stream.stopped
    assert stream.flush() is None
