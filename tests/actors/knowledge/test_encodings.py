"""The letters of texts whose encoding nobody tells."""

from __future__ import annotations

import codecs

import pytest

from actors.knowledge.encodings import check_encoding, decode
from actors.knowledge.errors import UnreadableDocument
from orchestration.errors import InvalidRequest

CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy. Dnes je hezké počasí a děti si hrají."
RUSSIAN = "Привет, как дела? Сегодня хорошая погода, и дети играют во дворе."
POLISH = "Zażółć gęślą jaźń. Wczoraj poszedłem do sklepu, żeby kupić chleb i masło."
GREEK = "Καλημέρα, τι κάνετε; Σήμερα ο καιρός είναι πολύ καλός."
JAPANESE = "こんにちは。今日はとても良い天気で、子供たちは外で遊んでいます。"
CHINESE = "你好，今天天气很好，孩子们在外面玩。我们去公园散步吧。"
SHORT = [
    "Café",
    "été",
    "ÄÖÜ",
    "El año pasado el niño comió jamón.\n",
    "He said “hello” – it’s 5€.\n",
    "¿Qué pasó después? ¡Aquí! «Sí»",
    "L’été dernier, nous avons mangé des crêpes à Besançon. Où êtes-vous allés\xa0?",
    "ÉCOLE SUPÉRIEURE À LA UNE",
    "A situação não é fácil; ações e emoções. Coração, pão e maçã.",
    "Größe, Länge und Höhe: schöne Grüße aus Köln, ½ µm, 5 °C, § 3, © 2020",
    "Åsa åker över ån på våren.",
    "Blåbærsyltetøy på brød. Øl og ål.",
    "Það er gott veður í dag. Ég þarf að fara út.",
    "De coördinatie van één geïsoleerde reünie.",
    "Perché la città è più bella? L’università.",
    "El col·legi és a prop de la plaça.",
    "Søren met Gonzalo Núñez and François Müller in Tromsø – “naïve”, £5, ¥7",
    "Müller;Köln;5,00 €;äußerst",
    "Tromsø ñandú",
    "Ångström, Fußball, Señor Ibáñez y Škoda",
]


@pytest.mark.parametrize("text", SHORT)
@pytest.mark.parametrize("times", [1, 20])
def test_every_letter_of_a_western_text_is_right_however_short(text: str, times: int) -> None:
    text = f"{text} " * times
    found = decode(text.encode("cp1252"))
    assert (found.text, found.encoding) == (text, "windows-1252")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1250", POLISH),
        ("iso-8859-2", POLISH),
        ("cp1250", CZECH),
        ("cp1250", "Árvíztűrő tükörfúrógép."),
        ("cp1250", "Astăzi este o zi frumoasă şi copiii se joacă în curte."),
        ("cp1254", "Bugün hava çok güzel, çocuklar dışarıda oynuyor. Işık ve gölge, ağaç ve dağ."),
        ("cp1257", "Šiandien labai gražus oras, vaikai žaidžia kieme. Ąžuolas, įdomu."),
        ("cp1251", RUSSIAN),
        ("cp1251", "Привет"),
        ("cp1251", "Сьогодні гарна погода, і діти граються у дворі."),
        ("cp1251", "Днес времето е хубаво."),
        ("koi8-r", RUSSIAN),
        ("iso-8859-5", RUSSIAN),
        ("cp866", RUSSIAN),
        ("cp1253", GREEK),
        ("cp1255", "שלום, מה שלומך? היום מזג האוויר יפה מאוד."),
        ("cp1256", "مرحبا كيف حالك؟ اليوم الطقس جميل جدا."),
        ("shift_jis", JAPANESE),
        ("euc_jp", JAPANESE),
        ("gb18030", CHINESE),
        ("big5", "你好，今天天氣很好，孩子們在外面玩。我們去公園散步吧。"),
        ("euc_kr", "안녕하세요. 오늘은 날씨가 아주 좋고 아이들이 밖에서 놀고 있습니다."),
        ("mac-roman", "L’été dernier, nous avons mangé des crêpes à Besançon."),
        ("cp850", "Größe und Höhe: schöne Grüße, möglichst früh."),
        ("cp437", "Größe und Höhe"),
        ("cp437", "café"),
        ("iso-8859-15", "naïve café, 10€"),
        ("iso-8859-15", "cœur, 5 €"),
        ("utf-16-le", "Hello wörld\n"),
        ("utf-16-le", "Привет"),
        ("utf-16-be", "Привет"),
        ("utf-16-le", "Γειάσου"),
        ("utf-16-le", "日本語テスト，今天天气很好。"),
        ("utf-16-be", "日本語テスト，今天天气很好。"),
        ("utf-16-be", "你好，今天\n天气"),
        ("utf-32-le", "Hello"),
        ("utf-16", "Hé"),
        ("utf-32", "Hé"),
        ("utf-8-sig", "Hé"),
    ],
)
def test_a_text_in_another_encoding_is_known_by_its_letters_or_marks(encoding: str, text: str) -> None:
    for times in (1, 50):
        assert decode((f"{text} " * times).encode(encoding)).text == f"{text} " * times
    assert decode(text.encode(encoding)).text == text


def test_a_letter_far_behind_is_right_too() -> None:
    assert decode(b"plain words here. " * 4000 + b"Fl\xe4che").text.endswith("here. Fläche")
    assert decode(b"plain words here. " * 4000 + "Fläche".encode()).encoding == "utf-8"


def test_utf_8_with_a_broken_byte_stays_utf_8() -> None:
    found = decode("Größe über alles. ".encode() * 20 + b"\xc3")
    assert (found.text[:5], found.text[-1]) == ("Größe", "\ufffd")
    assert found.encoding == "utf-8 with broken characters"


def test_the_bytes_that_windows_has_no_character_for_break_nothing() -> None:
    data = b"El a\xf1o pasado\x81 el ni\xf1o, ma\xf1ana, comi\xf3 jam\xf3n"
    assert decode(data).text == "El año pasado\x81 el niño, mañana, comió jamón"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (bytes(range(256)) * 20, "zero bytes"),
        (b"\x00\x01\x02" * 50, "zero bytes"),
        ("héllo\0world".encode(), "zero bytes"),
        (b"one.txt\0two.text\0", "zero bytes"),
        (bytes(range(1, 256)) * 20, "control characters"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(7, 250)) * 5, "control characters"),
        (codecs.BOM_UTF16_LE + b"odd", "its byte order mark says utf-16"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(UnreadableDocument, match=said):
        decode(data)


def test_an_encoding_that_is_given_is_taken_or_said_to_be_wrong() -> None:
    assert decode("дом".encode("cp1251"), given="cp1251").text == "дом"
    assert decode(codecs.BOM_UTF8 + "дом".encode(), given="utf-8").text == "дом"
    with pytest.raises(UnreadableDocument, match=r"encoding is utf-8, but the text is not: .* at byte 3"):
        decode(b"Caf\xe9", given="utf-8")
    assert check_encoding("Latin-1") == "Latin-1"
    for name in ("utf-9", "rot13", "hex", "", "a\0b"):
        with pytest.raises(InvalidRequest, match="unknown encoding"):
            check_encoding(name)


def test_ascii_with_control_characters_is_no_utf_16() -> None:
    overstruck = "".join(f"{letter}\b{letter}" for letter in "NAME of a manual page")
    assert decode(overstruck.encode()).text == overstruck
