"""Exit codes and messages of scripts, in real processes, and the shared flags."""

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
from simplenet.formats import PRECISIONS

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
            "warnings.simplefilter('always'); [warnings.warn(text, errors.SimpleNetWarning) for text in 'aba']",
            0,
            "",
            "warning: a\nwarning: b\n",
        ),
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


def test_other_warnings_are_unchanged() -> None:
    done = run("warnings.warn('theirs', UserWarning)")
    assert "UserWarning: theirs" in done.stderr


@pytest.mark.parametrize("body", ["print('x' * 10)", "[print('x' * 100) for _ in range(10000)]"])
def test_a_closed_pipe_ends_with_141(body: str) -> None:
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


@pytest.mark.parametrize(("folder", "module", "message"), [
    ("demos", "rich.table", "error: rich is not installed; type: pip install '.[demos]'\n"),
    ("export", "rich", "error: rich is not installed; type: pip install '.[export]'\n"),
    ("demos", "simplenet.nothing", None),
    ("elsewhere", "rich", None),
])  # fmt: skip
def test_a_missing_package_of_a_script_is_one_line(
    tmp_path: Path, folder: str, module: str, message: str | None
) -> None:
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
    assert done.stderr == message or (message is None and "Traceback" in done.stderr)


def test_a_closed_stderr_does_not_write_to_stdout() -> None:
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


def test_warnings_of_the_project_are_shown_whatever_pythonwarnings_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("ignore", "error"):
        monkeypatch.setenv("PYTHONWARNINGS", value)
        done = run("warnings.warn('assumed', errors.SimpleNetWarning)")
        assert (done.returncode, done.stderr) == (0, "warning: assumed\n")


@pytest.mark.parametrize("script", ["train/cifar.py", "train/average.py", "export/to_onnx.py", "demos/evaluate.py"])
def test_a_removed_working_directory_is_one_line(tmp_path: Path, script: str) -> None:
    command = shlex.join([sys.executable, str(ROOT / script), "--help"])
    done = subprocess.run(f"cd {tmp_path}; rmdir {tmp_path}; {command}", shell=True, capture_output=True, text=True)
    expected = "error: the working directory no longer exists; type: cd DIR, with a DIR that exists\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


def test_characters_outside_the_encoding_are_escaped() -> None:
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


@pytest.mark.parametrize("script", ["train/cifar.py", "train/imagefolder.py", "train/average.py"])
def test_ctrl_c_while_torch_is_imported(script: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, script, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted; no incomplete file was kept\n")


def test_uncaught_errors_keep_their_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from simplenet import cli; [][0]"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("IndexError: list index out of range\n")


def shared_flags() -> argparse.ArgumentParser:
    parser = cli.parser("Does it.\n\nTry:\n  this --now 100 %")
    for add in (cli.add_variant, cli.add_weights, cli.add_artifacts, cli.add_threads, cli.add_json):
        add(parser)
    cli.add_precision(parser, PRECISIONS)
    return parser


def test_shared_flags() -> None:
    parsed = vars(shared_flags().parse_args([]))
    artifacts = parsed.pop("artifacts")
    assert parsed == {
        "variant": "1.5m",
        "weights": "auto",
        "weights_key": None,
        "precision": "fp32",
        "threads": None,
        "json": False,
    }
    assert artifacts == Path("artifacts")
    assert shared_flags().parse_args(["--variant", "simplenetv1_5m_m1"]).variant == "5.7m-m1"


def test_help_shows_the_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        shared_flags().parse_args(["--help"])
    output = capsys.readouterr().out
    assert caught.value.code == 0
    assert "Does it." in output
    assert output.endswith("Try:\n  this --now 100 %\n")


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
def test_usage_errors_are_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        shared_flags().parse_args(arguments)
    output, errors = capsys.readouterr()
    assert (caught.value.code, output) == (2, "")
    assert errors.startswith("error: ")
    assert message in errors
    assert errors.count("\n") == 1
    assert "--help" in errors
    assert "\x1b" not in errors


def test_help_into_a_closed_pipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run("cli.parser('Does it.').parse_args()", "--help", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_argument_types() -> None:
    assert cli.variant_name("simplenet_cifar_5m") == "cifar-5m"
    assert cli.choice("variant", tuple(variants.VARIANTS))("3m") == "3m"
    assert cli.integer_in(1, 8)("8") == 8
    assert cli.positive_number("0.5") == 0.5


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon", ""])
def test_positive_number_rejects_other_text(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number above 0"):
        cli.positive_number(text)


def test_the_console_writes_to_stderr() -> None:
    assert cli.console().stderr
