"""The processor, as a published number must name it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_FEATURES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx512_bf16": "BF16", "amx_int8": "AMX"}


def processor() -> str:
    """Its name, and those vector instructions that decide how fast int8 and bf16 are."""
    try:
        text = _CPUINFO.read_text()
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    flags = set(text.split())
    found = [label for flag, label in _FEATURES.items() if flag in flags]
    return (name[1].strip() if name else platform.machine()) + (f" ({', '.join(found)})" if found else "")


def usable_cores() -> int:
    """How many logical processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
