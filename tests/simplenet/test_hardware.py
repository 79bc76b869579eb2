"""Processor, cores and memory, from fake system files."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from simplenet import hardware

X86 = """processor\t: 0
model name\t: Fast CPU 9
flags\t\t: fpu avx2 avx512f avx512_vnni

processor\t: 1
model name\t: Slow
"""
ROOT = Path(__file__).parents[2]
PI = "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd\n\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (X86, "Fast CPU 9 (AVX2, AVX-512, VNNI)"),
        (PI, "Raspberry Pi 5 Model B Rev 1.0"),
        ("Features\t: fp asimd\n", platform.machine()),
    ],
)
def test_processor_names_vector_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpuinfo: str, expected: str
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(hardware, "_CPUINFO", tmp_path / "cpuinfo")
    assert hardware.processor() == expected


def test_processor_without_cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_CPUINFO", tmp_path / "missing")
    assert hardware.processor() == (platform.processor() or platform.machine())


def test_usable_cores_follows_the_affinity() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system pins no processes")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert hardware.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert hardware.usable_cores() == len(before)


@pytest.mark.parametrize(
    ("siblings", "cores"),
    [
        (["0", "1", "2", "3"], 4),  # one thread per core
        (["0,2", "1,3", "0,2", "1,3"], 2),
        (["0-1", "0-1", "2-3", "2-3"], 2),
        ([], 4),  # no topology files
    ],
)
def test_physical_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, siblings: list[str], cores: int) -> None:
    for cpu, text in enumerate(siblings):
        (tmp_path / f"cpu{cpu}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list").write_text(f"{text}\n")
    monkeypatch.setattr(hardware, "_CPUS", tmp_path)
    monkeypatch.setattr(hardware, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert hardware.physical_cores() == cores


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 4), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("900000 100000", 4), ("", 4)],
)
def test_physical_cores_respects_a_container_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(hardware, "_CPUS", tmp_path)
    monkeypatch.setattr(hardware, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert hardware.physical_cores() == cores


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system has only one answer")
def test_peak_memory_is_that_of_this_process() -> None:
    ours = "from simplenet import hardware; held = b'x' * 60_000_000; del held; print(hardware.peak_resident_bytes())"
    launcher = f"import subprocess, sys; held = b'x' * 240_000_000; subprocess.run([sys.executable, '-c', {ours!r}])"
    done = subprocess.run([sys.executable, "-c", launcher], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 60_000_000 < int(done.stdout) < 180_000_000
