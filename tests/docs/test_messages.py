"""Messages that docs/troubleshooting.md quotes are those of the code."""

import ast
import re

from doc_pages import ROOT, read_page

ANY = "\0"


def _templates():
    """All texts of the code, what is filled in as one mark."""
    for path in sorted((ROOT / "covermap").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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
    lost = [
        message
        for message in messages
        if not any(
            re.search(".*".join(re.escape(part) for part in message.split("…")), text, re.S)
            for text in templates
            if message.split("…")[0] in text
        )
    ]
    assert not lost, f"no longer said by the code: {lost}"


def test_messages_are_long_enough_to_be_found():
    assert not [message for message in _quoted() if len(message.replace("…", "").strip()) < 10]
