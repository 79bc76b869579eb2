"""The messages that troubleshooting.md explains are those that the code has."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.documents import ROOT

PLACEHOLDERS = re.compile(r"\.\.\.|\b[A-Z]\b|\b\d+\b|[\[\],()]")


def quoted_messages() -> list[str]:
    """What stands in backticks in the first column of the tables."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    cells = re.findall(r"^\| (.+?) \|", text, re.MULTILINE)
    return [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]


def phrases(message: str) -> list[str]:
    """Phrases of the message that must be in the code: at least half of its words, in a row, and at least two."""
    parts = [part.split() for part in PLACEHOLDERS.split(message)]
    count = max(2, sum(map(len, parts)) // 2)
    return [" ".join(words[at : at + count]) for words in parts for at in range(len(words) - count + 1)]


@pytest.fixture(scope="module")
def texts() -> str:
    """Every string of the code, without the values of f-strings; and the Makefile."""
    found = [(ROOT / "Makefile").read_text("utf-8")]
    for folder in ("simplenet", "runtimes", "export", "train", "demos"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values]
                    found.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


@pytest.mark.parametrize(
    "message", [message for message in quoted_messages() if len(message.split()) > 2 and "Python 3" not in message]
)
def test_code_has_the_message(message: str, texts: str) -> None:
    assert any(phrase in texts for phrase in phrases(message)), phrases(message)
