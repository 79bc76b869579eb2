"""Signals that end a program: the first finishes it, the second is ignored, the third ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from simplenet import signals

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows sends other signals")
SCRIPT = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from simplenet import cli, errors, signals
def send(*names):
    for name in names:
        signal.raise_signal(getattr(signal, "SIG" + name))
def main():
    {body}
    print("finished")
    return 0
cli.run(main)
"""


def run(body: str, ignored: str = "") -> subprocess.CompletedProcess[str]:
    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for name in ignored.split():
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    command = [sys.executable, "-c", SCRIPT.format(root=str(ROOT), body=body)]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=prepare)


@pytest.mark.parametrize(("names", "code", "by"), [
    ("INT", 130, ""), ("TERM", 143, " by SIGTERM"), ("HUP", 129, " by SIGHUP"), ("INT TERM", 130, ""),
])  # fmt: skip
def test_a_signal_ends_a_script_after_its_cleanup(names: str, code: int, by: str) -> None:
    first, *others = names.split()
    done = run(f"""
    try: send({first!r})
    finally: send(*{others!r}); print("cleaned up")
    """)
    assert (done.returncode, done.stdout) == (code, "cleaned up\n")
    assert done.stderr == f"interrupted{by}; no incomplete file was kept\n"


@pytest.mark.parametrize("names", ["INT", "INT INT", "TERM INT", "INT TERM", "HUP HUP HUP HUP"])
def test_a_second_signal_while_finishing_is_ignored(names: str) -> None:
    done = run(f"with signals.handled(print): send(*{names.split()!r})")
    first = {"INT": "Ctrl-C", "TERM": "SIGTERM", "HUP": "SIGHUP"}[names.split()[0]]
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{first}\nfinished\n", "")


@pytest.mark.parametrize(("names", "code"), [("INT INT INT", 130), ("TERM INT INT", 143), ("HUP HUP TERM", 129)])
def test_a_third_signal_ends_a_script_that_finishes(names: str, code: int) -> None:
    done = run(f"with signals.handled(lambda name: None): send(*{names.split()!r})")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)


def test_a_second_signal_after_the_block_is_ignored() -> None:
    done = run("""
    with signals.handled(print): send("INT")
    send("INT")
    """)
    assert (done.returncode, done.stdout) == (0, "Ctrl-C\nfinished\n")


@pytest.mark.parametrize("names", ["HUP", "INT", "INT TERM"])
@pytest.mark.parametrize("body", ["send(*{0!r})", "with signals.handled(print): send(*{0!r})"])
def test_signals_that_the_parent_ignores_stay_ignored(names: str, body: str) -> None:
    done = run(body.format(names.split()), ignored=" ".join(f"SIG{name}" for name in names.split()))
    assert (done.returncode, done.stdout, done.stderr) == (0, "finished\n", "")


@pytest.mark.parametrize("error", ["ImportError('no numpy')", "errors.BackendUnavailable('openvino is missing')"])
def test_ctrl_c_that_a_package_turns_into_another_error(error: str) -> None:
    done = run(f"""
    try: send("INT")
    except KeyboardInterrupt: raise {error}
    """)
    assert (done.returncode, done.stderr) == (130, "interrupted; no incomplete file was kept\n")


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_a_signal_in_the_last_steps_keeps_the_exit_code(name: str) -> None:
    done = run(f"import atexit; atexit.register(send, {name!r})")
    assert (done.returncode, done.stdout, done.stderr) == (0, "finished\n", "")


def test_handlers_are_restored_and_threads_keep_theirs() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def in_a_thread() -> None:
        with signals.handled():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert seen == [before]
    with signals.handled():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("folder", ["demos/webcam.py", "export/to_onnx.py", "train/cifar.py"])
def test_ctrl_c_during_imports_is_one_line(folder: str, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("""
import os, signal, time
try: os.kill(os.getpid(), signal.SIGINT); time.sleep(60)
except KeyboardInterrupt: raise ImportError("numpy.core failed to import")
""")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, ROOT / folder, "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stderr) == (130, "interrupted; no incomplete file was kept\n")
