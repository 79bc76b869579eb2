"""What a published number must name: the processor, the cores used, the most memory held."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

_CPUINFO, _STATUS = Path("/proc/cpuinfo"), Path("/proc/self/status")
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


def peak_resident_bytes() -> int:
    """The most memory that this process has held at a time so far, everything imported included."""
    if _STATUS.is_file():  # Linux, where getrusage also counts what the process was started from
        peak_kib = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(errors="replace"), re.MULTILINE)
        if peak_kib:
            return int(peak_kib[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
