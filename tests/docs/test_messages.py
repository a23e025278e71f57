"""Messages that docs/troubleshooting.md quotes are those of the code."""

import ast
import re

from doc_pages import ROOT, read_page

ANY = "\0"


def _templates():
    """All texts of the code, what is filled in as one mark."""
    for path in sorted((ROOT / "covermap").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if id(node) in docstrings:
                continue
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else ANY for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def _quoted():
    return re.findall(r"^\*\*`(.+)`\*\*$", read_page(ROOT / "docs/troubleshooting.md").prose, re.M)


def test_quoted_messages_are_in_the_code():
    templates = list(_templates())
    messages = _quoted()
    assert len(messages) >= 40
    assert len(set(messages)) == len(messages)
    lost = []
    for message in messages:
        parts = message.split("…")
        longest, pattern = max(parts, key=len), re.compile(".*".join(map(re.escape, parts)))
        if not any(longest in text and pattern.search(text) for text in templates):
            lost.append(message)
    assert not lost, f"no longer said by the code: {lost}"


def test_messages_are_long_enough_to_be_found():
    assert not [message for message in _quoted() if len(message.replace("…", "").strip()) < 10]
