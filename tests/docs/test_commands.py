"""Every command in the documents exists and parses; those that are quick and need nothing else are run."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from demos.live import dashboard
from simplenet import datasets, variants
from tests.conftest import MakeArtifact
from tests.docs.documents import DOCUMENTS, ROOT, Command, code_blocks, commands, inline_code

COMMANDS = list({command.text: command for document in DOCUMENTS for command in commands(document)}.values())
SCRIPTS = [command for command in COMMANDS if "python" in command.words[0] and command.words[1].endswith(".py")]
SCRIPTS += [
    command for command in COMMANDS if command.words[0] == "torchrun" and any(".py" in w for w in command.words)
]

ALL_SCRIPTS = sorted(
    path
    for folder in ("demos", "export", "train")
    for path in (ROOT / folder).glob("*.py")
    if "cli.run(main)" in path.read_text("utf-8")
)

RUN = {
    "python export/to_onnx.py --variant cifar-310k --weights runs/mine/cifar-310k.safetensors": [],
    "python demos/webcam.py --source synthetic --display none --duration 30 --json > events.jsonl": [
        "--max-frames",
        "5",
    ],
    "python train/cifar.py --help": [],
    "python train/imagefolder.py --help": [],
}
"""Commands that this file runs, with flags that shorten them. The tests that mirror a script run its other flags."""

MAKE_TARGETS_IN_CI = {"compare", "lint", "setup-dev", "setup-live", "test", "web"}
"""What .ci/run runs, directly or as a prerequisite."""
MAKE_TARGETS_NOT_IN_CI = {
    "bench": "prints times; `make test` runs each benchmark once, untimed",
    "clean": "removes files",
    "distclean": "removes files",
    "format": "rewrites files",
    "help": "prints the list of targets",
    "images": "needs a quiet machine; tests/docs/test_images.py checks its results",
    "setup": "the first step of compare",
    "test-fast": "a part of `make test`",
    "test-live": "the tests with a window and a browser, which `make test` runs in CI, too",
}

NOT_OURS = {
    ". .venv/bin/activate": "a shell's",
    "git clone": "needs a network",
    "git lfs pull": "needs a network",
    "nvidia-smi": "needs a GPU",
    "pip download": "needs a network",
    "pip install": "needs a network; the extras are checked below",
    "pip uninstall": "changes the environment",
    "pipx install": "needs a network",
    "pre-commit install": "changes the clone",
    "python3 -m venv": "the Makefile does it in CI",
    ".venv/bin/python -m pytest": "pytest's own",
    "python -m pytest": "pytest's own",
    "ssh -L": "needs a second machine",
    "sudo apt install": "changes the machine",
    "sudo usermod": "changes the machine",
    "torchrun --nproc-per-node": "tests/train/test_distributed.py",
}
"""Commands of other programs, by how they start, and why they are not run here."""


def module_of(script: str) -> Any:
    return importlib.import_module(script.removesuffix(".py").replace("/", "."))


def script_and_flags(command: Command) -> tuple[str, list[str]]:
    at = next(at for at, word in enumerate(command.words) if word.endswith(".py"))
    return command.words[at], [word for word in command.words[at + 1 :] if word != "..."]


def parser_of(script: str) -> Any:
    return module_of(script).build_parser()


def examples_in_help(script: Path) -> list[Command]:
    """The commands in a script's docstring, which --help shows."""
    return indented_commands(ast.get_docstring(ast.parse(script.read_text("utf-8")), clean=False) or "")


def indented_commands(text: str) -> list[Command]:
    """Lines that are indented by four spaces; two spaces separate a command from its explanation."""
    text = re.sub(r"\\\n +", "", text)
    lines = re.findall(r"^    ((?:python|torchrun) .+)$", text, re.MULTILINE)
    return [Command("", re.split(r"(?<=\S)  +(?=[^ -])", line)[0]) for line in lines]


@pytest.mark.parametrize("command", SCRIPTS, ids=lambda command: command.text)
def test_script_accepts_the_flags(command: Command) -> None:
    script, flags = script_and_flags(command)
    assert (ROOT / script).is_file()
    parser = parser_of(script)
    if flags and "--help" not in flags:
        parser.parse_args(flags)


@pytest.mark.parametrize("path", ALL_SCRIPTS, ids=lambda path: path.name)
def test_examples_in_help_parse(path: Path) -> None:
    script = path.relative_to(ROOT).as_posix()
    examples = examples_in_help(path)
    assert examples
    for example in examples:
        named, flags = script_and_flags(example)
        parser_of(named).parse_args(flags)
    assert any(script in example.text for example in examples)


@pytest.mark.parametrize("name", datasets.shipped_weights())
def test_commands_of_shipped_weights_parse(name: str) -> None:
    examples = indented_commands((datasets.SHIPPED / name / "README.md").read_text("utf-8"))
    assert examples
    for example in examples:
        script, flags = script_and_flags(example)
        parser_of(script).parse_args(flags)


@pytest.mark.parametrize("script", sorted({script_and_flags(command)[0] for command in SCRIPTS}))
def test_script_has_tests_of_its_own(script: str) -> None:
    path = Path(script)
    assert (ROOT / "tests" / path.with_name(f"test_{path.name}")).is_file()


def test_every_other_command_is_known() -> None:
    others = [command for command in COMMANDS if command not in SCRIPTS and command.words[0] != "make"]
    modules = [command for command in others if command.words[:2] == ["python", "-m"] and command.words[2] != "pytest"]
    for command in modules:
        assert (ROOT / command.words[2].replace(".", "/")).with_suffix(".py").is_file(), command
    unknown = {
        command.text
        for command in others
        if command not in modules and not any(command.text.startswith(known) for known in NOT_OURS)
    }
    assert unknown == set()


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    defined = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {
        word for command in COMMANDS if command.words[0] == "make" for word in command.words[1:] if "=" not in word
    }
    assert named <= defined
    assert named <= MAKE_TARGETS_IN_CI | set(MAKE_TARGETS_NOT_IN_CI)
    ci = (ROOT / ".ci" / "run").read_text()
    assert {"compare", "setup-live", "lint", "test"} == set(re.findall(r"\b(compare|setup-live|lint|test)\b", ci))


def test_readme_lists_every_variant() -> None:
    cells = [cell.strip() for cell in (ROOT / "README.md").read_text("utf-8").split("|")]
    for variant in variants.VARIANTS.values():
        at = cells.index(f"`{variant.name}`")
        published = "" if variant.published_top1 is None else f"{variant.published_top1:.2f}"
        size = str(variant.preprocessing.input_size)
        assert cells[at + 1 : at + 4] == [f"{variant.parameters:,}", size, published]


def test_live_lists_every_key() -> None:
    text = (ROOT / "docs" / "live.md").read_text("utf-8")
    assert [key.name for key in dashboard.KEYS if f"`{key.name}`" not in text] == []


def test_extras_that_pip_installs_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    named = {
        extra
        for document in DOCUMENTS
        for group in re.findall(r"\.\[([a-z,-]+)\]", document.read_text())
        for extra in group.split(",")
    }
    assert named
    assert named <= set(re.findall(r"^([a-z-]+) = ", project, re.MULTILINE))


def test_flags_named_alone_exist() -> None:
    parsers = [parser_of(path.relative_to(ROOT).as_posix()) for path in ALL_SCRIPTS]
    known = {flag for parser in parsers for action in parser._actions for flag in action.option_strings}
    named = {
        word
        for document in DOCUMENTS
        for code in inline_code(document)
        if code.startswith("--")
        for word in code.replace("=", " ").split()
        if word.startswith("--")
    }
    assert named <= known


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder with what the commands name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["a test"])
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    shutil.copy(datasets.SHIPPED / "fashion-mnist" / "cifar-310k.safetensors", tmp_path / "runs" / "mine")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("text", RUN)
def test_command_runs(text: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = [command for command in COMMANDS if command.text == text]
    script, flags = script_and_flags(command)
    try:
        code = module_of(script).main([*flags, *RUN[text]])
    except SystemExit as ended:  # --help
        code = ended.code
    assert code == 0, capsys.readouterr().err
    assert capsys.readouterr().out


@pytest.mark.slow
def test_readme_example_runs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = code_blocks(ROOT / "README.md", "python")
    exec(compile(example, "README.md", "exec"), {})
    classes = datasets.shipped("fashion-mnist", "evaluation").classes
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.rpartition(" ")[0] in classes for line in lines)


@pytest.mark.slow
def test_examples_in_docs_run(workplace: Path, make_artifact: MakeArtifact) -> None:
    examples = [
        example for path in DOCUMENTS[1:] for example in code_blocks(path, "python") if "runtimes.load" in example
    ]
    assert len(examples) >= 2
    shutil.copytree(make_artifact("onnx", "fp32").folder, workplace / "artifacts/1.5m/openvino-int8")
    frame = np.asarray(Image.new("RGB", (64, 48), "gray"))
    batch = np.zeros((1, 32, 32, 3), np.uint8)
    for example in examples:
        exec(compile("import runtimes\n" + example, "docs", "exec"), {"frame": frame, "batch": batch})
