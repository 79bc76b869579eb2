"""The command line's one way out: exit codes and lines on stderr, in real processes."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest

from simplenet import cli, variants

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys, time, warnings
from simplenet import cli, errors

def main():
    {body}
    return 0

cli.run(main)
"""


def run(
    body: str,
    *arguments: str,
    stdout: int | TextIO = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    encoding: str = "utf-8",
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUNBUFFERED": ""},
        stdout=stdout,
        stderr=stderr,
        encoding=encoding,
        check=False,
    )


@pytest.mark.parametrize(
    ("body", "code", "output", "errors"),
    [
        ("print('hello')", 0, "hello\n", ""),
        ("return 3", 3, "", ""),
        ("raise errors.WeightsError('no weights; type this')", 1, "", "error: no weights; type this\n"),
        ("raise errors.UsageError('no such thing')", 2, "", "error: no such thing\n"),
        ("print('half'); raise errors.DataError('bad')", 1, "half\n", "error: bad\n"),
        ("raise errors.DataError('a\\nb\\x1b[2J\\udcff')", 1, "", "error: a b\ufffd[2J\ufffd\n"),
        ("raise KeyboardInterrupt", 130, "", "interrupted; no incomplete file was kept\n"),
        ("warnings.warn('odd', errors.UntrainedWarning)", 0, "", "warning: odd\n"),
        (
            "raise OSError(28, 'No space left on device', '/a')",
            1,
            "",
            "error: No space left on device: /a; free some space\n",
        ),
        (
            "raise PermissionError(13, 'Permission denied', '/a')",
            1,
            "",
            "error: Permission denied: /a; name another path, or change its permissions\n",
        ),
        (
            "import pathlib; print(pathlib.Path('x' * 300).is_dir())",
            1,
            "",
            f"error: File name too long: {'x' * 300}; name another path, or change its permissions\n",
        ),
    ],
)
def test_exit_codes_and_lines(body: str, code: int, output: str, errors: str) -> None:
    done = run(body)
    assert (done.returncode, done.stdout, done.stderr) == (code, output, errors)


@pytest.mark.parametrize("error", ["ValueError('bug')", "FileNotFoundError(2, 'bug')"])
def test_unexpected_exceptions_keep_their_traceback(error: str) -> None:
    done = run(f"raise {error}")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert "bug" in done.stderr


def test_other_peoples_warnings_stay_as_they_are() -> None:
    done = run("warnings.warn('theirs', UserWarning)")
    assert "UserWarning: theirs" in done.stderr


@pytest.mark.parametrize("body", ["print('x' * 10)", "[print('x' * 100) for _ in range(10000)]"])
def test_a_reader_that_went_away(body: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(body, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("body", ["print('x')", "[print('x' * 100) for _ in range(10000)]"])
def test_output_that_cannot_be_written(body: str) -> None:
    with open("/dev/full", "w") as full:
        done = run(body, stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") <= 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("folder", "module", "told"), [
    ("demos", "rich.table", "error: rich.table is not installed; type: pip install '.[demos]'\n"),
    ("export", "rich", "error: rich is not installed; type: pip install '.[export]'\n"),
    ("demos", "simplenet.nothing", None),
    ("elsewhere", "rich", None),
])  # fmt: skip
def test_a_missing_package_of_a_script_is_one_line(tmp_path: Path, folder: str, module: str, told: str | None) -> None:
    (tmp_path / folder).mkdir()
    script = tmp_path / folder / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from simplenet import cli\n"
        f"sys.modules[{module!r}] = None\n"
        f"def main(): import {module}\n"
        "cli.run(main)"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == told or (told is None and "Traceback" in done.stderr)


def test_a_closed_stderr_leaves_stdout_to_the_result() -> None:
    body = "warnings.warn('odd', errors.UntrainedWarning); print('result')"
    script = shlex.join([sys.executable, "-c", SCRIPT.format(body=body)])
    done = subprocess.run(f"{script} 2>&-", shell=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, "result\n")


def test_a_closed_terminal_changes_no_exit_code() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run("cli.log('lost'); print('result')", stderr=writing)
    os.close(writing)
    assert (done.returncode, done.stdout) == (0, "result\n")


def test_a_closed_stdout_is_no_error() -> None:
    script = shlex.join([sys.executable, "-c", SCRIPT.format(body="print('result')")])
    done = subprocess.run(f"{script} >&-", shell=True, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stdout_of_few_characters_gets_the_others_escaped() -> None:
    done = run("print('caf\\u00e9 \\u732b')", encoding="ascii")
    assert (done.returncode, done.stdout) == (0, "caf\\xe9 \\u732b\n")


def test_ctrl_c() -> None:
    command = [sys.executable, "-c", SCRIPT.format(body="print('ready', flush=True); time.sleep(60)")]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr.read() == "interrupted; no incomplete file was kept\n"


FLAGS = (
    "p = cli.parser('Does it.\\n\\nTry:\\n  this --now 100 %'); cli.add_variant(p); cli.add_weights(p); "
    "cli.add_precision(p); cli.add_artifacts(p); cli.add_threads(p); cli.add_json(p); print(vars(p.parse_args()))"
)


def test_shared_flags() -> None:
    done = run(FLAGS)
    assert done.stderr == ""
    for expected in (
        "'variant': '1.5m'",
        "'weights': 'auto'",
        "'precision': 'fp32'",
        "'threads': None",
        "'json': False",
    ):
        assert expected in done.stdout
    assert "'variant': '5.7m-m1'" in run(FLAGS, "--variant", "simplenetv1_5m_m1").stdout


def test_help_shows_the_docstring() -> None:
    done = run(FLAGS, "--help")
    assert done.returncode == 0
    assert "Does it." in done.stdout
    assert done.stdout.endswith("Try:\n  this --now 100 %\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--variant", "1.5"), "unknown variant '1.5', did you mean '1.5m'?; choose from: 1.5m,"),
        (
            ("--precision", "fp61"),
            "unknown precision 'fp61', did you mean 'fp16'?; choose from: fp32, fp16, bf16, int8",
        ),
        (("--threads", "0"), "'0' is not an integer from 1 to 1024"),
        (("--threads", "2.5"), "'2.5' is not an integer"),
        (("--vari", "1.5m"), "unrecognized arguments: --vari"),
        (("--surprise\n\x1b[2J",), "unrecognized arguments: --surprise"),
        (("--weights",), "expected one argument"),
    ],
)
def test_usage_errors_are_one_line_and_code_2(arguments: tuple[str, ...], message: str) -> None:
    done = run(FLAGS, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "--help" in done.stderr
    assert "\x1b" not in done.stderr


def test_help_into_a_closed_pipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(FLAGS, "--help", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_argument_types() -> None:
    assert cli.variant_name("simplenet_cifar_5m") == "cifar-5m"
    assert cli.choice("variant", tuple(variants.VARIANTS))("3m") == "3m"
    assert cli.integer_in(1, 8)("8") == 8
    assert cli.positive_number("0.5") == 0.5


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon", ""])
def test_what_is_no_number_above_0_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number above 0"):
        cli.positive_number(text)


def test_the_console_writes_to_stderr() -> None:
    assert cli.console().stderr
