"""A description of the machine, and how busy other programs keep it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from simplenet import fast_resize, hardware

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def describe() -> dict[str, str | int | float | None]:
    """The processor, memory, system and Python version, for the table's notes and the JSON."""
    import psutil

    return {
        "processor": hardware.processor(),
        "physical_cores": hardware.physical_cores(),
        "logical_cores": os.cpu_count() or 1,
        "governor": _GOVERNOR.read_text().strip() if _GOVERNOR.is_file() else None,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "resizer": "cykooz-resizer" if fast_resize.available() else "Pillow",
    }


def busy_percent(seconds: float = 0.5) -> float:
    """How much of all processors other programs used during `seconds`, 0 to 100."""
    import psutil

    return float(psutil.cpu_percent(seconds))
