"""What a published number must name: the processor, the system, and whether anything else was running."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from runtimes.base import physical_cores


def describe() -> dict[str, str | int | float]:
    """The machine, for a table's heading and its JSON."""
    import psutil

    return {
        "processor": processor(),
        "physical_cores": physical_cores(),
        "logical_cores": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def processor() -> str:
    """The processor's name and the vector instructions that decide int8 and bf16 speed."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    flags = set(text.split())
    features = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx512_bf16": "BF16", "amx_int8": "AMX"}
    found = [label for flag, label in features.items() if flag in flags]
    return (name[1].strip() if name else platform.machine()) + (f" ({', '.join(found)})" if found else "")


def busy_percent(seconds: float = 0.5) -> float:
    """How much of all processors other programs used during `seconds`, 0 to 100."""
    import psutil

    return float(psutil.cpu_percent(seconds))
