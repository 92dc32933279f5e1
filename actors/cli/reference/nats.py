"""The reference page of NATS: subjects, headers, streams and buckets."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from actors.bus import subjects
from actors.bus.declarations import shipped_declaration
from actors.cli.reference.source import attribute_docs, matching, one_line, parsed, table

HEAD = """# NATS

Clients use the endpoints of the service `orchestra`, such as `orchestra.chat`. All other subjects are how the
parts of Orchestra talk to each other; they are listed for operators who write permissions or watch messages,
and may change between minor versions. Names in subjects are encoded: every character other than a letter, a
digit or `-` becomes `_` and its two hexadecimal digits.
"""


def page() -> str:
    """The page as Markdown."""
    declared = shipped_declaration()
    streams = [
        (f"`{stream.name}`", ", ".join(f"`{each}`" for each in stream.subjects), one_line(stream.description))
        for stream in declared.streams
    ]
    buckets = [(f"`{bucket.name}`", one_line(bucket.description)) for bucket in declared.buckets]
    return (
        f"{HEAD}\n## Subjects\n\n{table(('subject', 'what it is for'), list(_subjects()))}"
        f"\n## Headers\n\n{table(('header', 'what it says'), sorted(_headers()))}"
        f"\n## Streams\n\n{table(('stream', 'subjects', 'what it holds'), streams)}"
        f"\n## Key-value buckets\n\n{table(('bucket', 'what it holds'), buckets)}"
    )


def _subjects() -> Iterator[tuple[str, ...]]:
    """The constants of `actors.bus.subjects` that no client calls, and the f-strings that its value types
    return, with their docstrings."""
    module = parsed(subjects.__name__)
    for name, text in attribute_docs(module.body).items():
        subject = getattr(subjects, name)
        if not subject.startswith("orchestra."):
            yield f"`{subject}`", text
    for kind in module.body:
        if not isinstance(kind, ast.ClassDef):
            continue
        about = one_line(ast.get_docstring(kind))
        for method in kind.body:
            if isinstance(method, ast.FunctionDef) and _returned(method):
                text = one_line(ast.get_docstring(method)) or about
                yield f"`{_returned(method)}`", text


def _returned(method: ast.FunctionDef) -> str:
    for node in ast.walk(method):
        value = node.value if isinstance(node, ast.Assign | ast.Return) else None
        if isinstance(value, ast.JoinedStr) and isinstance(value.values[0], ast.Constant):
            parts = [
                str(part.value) if isinstance(part, ast.Constant) else f"<{_name(part)}>"
                for part in value.values
            ]
            text = "".join(parts)
            return text if "." in text and " " not in text else ""
    return ""


def _name(part: ast.expr) -> str:
    """The last word of the expression in an f-string: `encode_token(self.model)` is `model`."""
    words = [node.attr for node in ast.walk(part) if isinstance(node, ast.Attribute)]
    names = [node.id for node in ast.walk(part) if isinstance(node, ast.Name) and node.id != "self"]
    return (words or [name for name in names if name != "encode_token"] or ["…"])[0]


def _headers() -> Iterator[tuple[str, ...]]:
    for tree in map(parsed, matching('= "Orchestra-')):
        docs = attribute_docs(tree.body)
        for statement in tree.body:
            if (
                isinstance(statement, ast.Assign)
                and isinstance(statement.targets[0], ast.Name)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
                and statement.value.value.startswith("Orchestra-")
            ):
                yield f"`{statement.value.value}`", docs.get(statement.targets[0].id, "")
