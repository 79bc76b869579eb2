"""The machine and this process: processor, usable cores, peak memory, fork."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from pathlib import Path

_CPUINFO, _STATUS, _STAT = Path("/proc/cpuinfo"), Path("/proc/self/status"), Path("/proc/self/stat")
_CPUS, _QUOTA = Path("/sys/devices/system/cpu"), Path("/sys/fs/cgroup/cpu.max")
_THERMAL = Path("/sys/class/thermal")
_FEATURES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx512_bf16": "BF16", "amx_int8": "AMX"}


def processor() -> str:
    """Return the processor's name and the vector instructions that matter for int8 and bf16."""
    try:
        text = _CPUINFO.read_text()
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    flags = set(text.split())
    found = [label for flag, label in _FEATURES.items() if flag in flags]
    return (name[1].strip() if name else platform.machine()) + (f" ({', '.join(found)})" if found else "")


def usable_cores() -> int:
    """Return the number of logical processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def physical_cores() -> int:
    """Return the number of physical cores that this process may use, at most a container's CPU limit.

    Only Linux reports physical cores and limits (cgroup v2). Elsewhere, the number of logical processors is returned.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        try:
            # Not core_id: Arm kernels restart it in every cluster of a package.
            cores.add((_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip())
        except OSError:
            cores.add(str(cpu))
    try:
        quota_us, period_us = map(int, _QUOTA.read_text().split())  # docker run --cpus=2: 200000 100000
        return max(1, min(len(cores), -(-quota_us // period_us)))
    except (OSError, ValueError):  # no cgroup v2, or 'max': no limit
        return len(cores)


def peak_resident_bytes() -> int:
    """Return the peak resident memory of this process so far, imports included."""
    if _STATUS.is_file():  # Linux, where getrusage would include the peak of the parent process
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


def is_forked() -> bool:
    """Whether this process was forked without exec (PF_FORKNOEXEC); False where there is no /proc."""
    try:
        flags = int(_STAT.read_text().rpartition(")")[2].split()[6])
    except OSError:
        return False
    return bool(flags & 0x40)


def clock_mhz() -> float | None:
    """Return the current clock frequency of the first processor, if the system reports it."""
    try:
        return int((_CPUS / "cpu0" / "cpufreq" / "scaling_cur_freq").read_text()) / 1e3
    except (OSError, ValueError):
        return None


def temperature_c() -> float | None:
    """Return the temperature of the hottest thermal zone in degrees Celsius, if the system reports one."""
    found = []
    for zone in _THERMAL.glob("thermal_zone*/temp"):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(zone.read_text()) / 1e3)
    return max(found, default=None)
