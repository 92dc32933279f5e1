from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from actors.telemetry.exposition import exposition
from actors.telemetry.labels import MAX_LABEL_LENGTH, OTHER, BoundedLabel, NodeLabel, clean_label


def test_values_beyond_the_limit_are_other_until_one_is_removed() -> None:
    label = BoundedLabel("test", 2)
    assert [label.of("a"), label.of("b"), label.of("c"), label.of("a")] == ["a", "b", OTHER, "a"]
    label.remove("a")
    assert [label.of("c"), label.of("a")] == ["c", OTHER]


def test_a_value_of_a_caller_is_other_unless_the_cluster_knows_it() -> None:
    label = BoundedLabel("test", 2)
    assert label.known("made up") == OTHER
    label.of("real")
    assert (label.known("real"), label.known("made up")) == ("real", OTHER)


async def test_a_label_with_a_newline_a_half_surrogate_or_a_megabyte_is_one_readable_line() -> None:
    assert clean_label("a\nb") == "a_b"
    assert clean_label('a"b\\c') == 'a"b\\c'
    assert len(clean_label("x" * 2**20)) == MAX_LABEL_LENGTH
    registry = CollectorRegistry()
    counter = Counter("seen", "Things seen", ["what"], registry=registry)
    label = BoundedLabel("test", 10)
    values = ["line\nbreak", "half \ud83d pair", 'quote" and \\', "nul\x00", "ümlaut", ""]
    for value in values:
        counter.labels(label.of(value)).inc()
    text = (await exposition(registry)).decode()
    (family,) = text_string_to_metric_families(text)
    found = {sample.labels["what"] for sample in family.samples}
    assert found == {"line_break", "half _ pair", 'quote" and \\', "nul_", "ümlaut", ""}
    assert len(text.splitlines()) == 2 + len(values)


def test_a_node_that_left_loses_its_series_after_a_while_unless_it_comes_back() -> None:
    label, removed = NodeLabel("test", 10), list[str]()
    label.on_removed.append(removed.append)
    for node in ("stays", "leaves", "returns"):
        label.of(node)
    label.left("leaves")
    label.left("returns")
    label.left("never seen")
    label.prune()
    assert removed == []
    label.back("returns")
    label.prune(gone_s=0)
    assert removed == ["leaves"]
    assert label.known("returns") == "returns"
