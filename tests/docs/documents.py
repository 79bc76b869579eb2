"""Read README.md, CONTRIBUTING.md and docs/*.md: their commands, Python examples, links, images and headings."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_PROGRAMS = ("python", "python3", ".venv/bin/python", "torchrun", "make", "pip", "pipx", "sudo", "ssh", "git")
_ENVIRONMENT = re.compile(r"(?:[A-Z_]+=\S+ )*")


@dataclass(frozen=True)
class Command:
    """A command line as the document has it."""

    document: str
    text: str

    @property
    def words(self) -> list[str]:
        """Without environment variables, redirections and what follows a pipe."""
        line = self.text[_ENVIRONMENT.match(self.text).end() :]  # type: ignore[union-attr]
        return shlex.split(re.split(r" [>|&] ?", line)[0], comments=True)


def without_fences(document: Path) -> str:
    return _FENCE.sub("", document.read_text("utf-8"))


def code_blocks(document: Path, *languages: str) -> list[str]:
    """The fenced blocks in these languages."""
    return [found[3] for found in _FENCE.finditer(document.read_text("utf-8")) if found[2] in languages]


def inline_code(document: Path) -> list[str]:
    return _INLINE.findall(without_fences(document))


def commands(document: Path) -> list[Command]:
    """Every line of the shell blocks, and all inline code that starts with a program's name."""
    lines = [
        line.strip()
        for block in code_blocks(document, "bash")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip()
    ]
    inline = [code for code in inline_code(document) if _is_command(code)]
    each = [part for line in (*lines, *inline) for part in line.split(" && ")]
    return [Command(document.relative_to(ROOT).as_posix(), re.sub(r" +", " ", part)) for part in each]


def _is_command(code: str) -> bool:
    words = code[_ENVIRONMENT.match(code).end() :].split()  # type: ignore[union-attr]
    return len(words) > 1 and words[0] in _PROGRAMS


def links(document: Path) -> list[str]:
    """Targets of links and images."""
    return re.findall(r"\]\(([^)\s]+)\)", without_fences(document))


def images(document: Path) -> list[str]:
    return re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", without_fences(document))


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", without_fences(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
