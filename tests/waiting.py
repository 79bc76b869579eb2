"""Waiting for what another thread or process does in its own time."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable


def wait_until(holds: Callable[[], object], seconds: float = 30) -> None:
    """Fails where it does not hold after so long, which is for machines that are busy with something else."""
    deadline_s = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def wait_while_running(process: subprocess.Popen[str], holds: Callable[[], object], seconds: float = 400) -> None:
    """Until it holds; fails, with what the process wrote, where that ends before."""

    def holds_or_ended() -> bool:
        if holds():
            return True
        assert process.poll() is None, process.communicate()
        return False

    wait_until(holds_or_ended, seconds)
