"""What a published number must name: the processor, the cores that may be used, the most memory held."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

_CPUINFO, _STATUS = Path("/proc/cpuinfo"), Path("/proc/self/status")
_CPUS, _QUOTA = Path("/sys/devices/system/cpu"), Path("/sys/fs/cgroup/cpu.max")
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


def physical_cores() -> int:
    """Physical cores this process may use: hyperthreads of one core count once, and no more than a container's limit on
    time (Linux tells both, the limit with cgroup v2; elsewhere all count)."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        try:
            # Not core_id, which Arm's kernels count anew in every cluster of one package.
            cores.add((_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip())
        except OSError:
            cores.add(str(cpu))
    try:
        quota_us, period_us = map(int, _QUOTA.read_text().split())  # docker run --cpus=2: 200000 100000
        return max(1, min(len(cores), -(-quota_us // period_us)))
    except (OSError, ValueError):  # no container, or 'max': no limit
        return len(cores)


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
