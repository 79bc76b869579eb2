"""Atomic writing: the old file or the new one."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from simplenet import files
from simplenet.errors import SimpleNetError, UsageError

ROOT = Path(__file__).parents[2]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.txt"
    for text in ("one", "two"):
        with files.replacing(target) as temporary:
            assert temporary.parent == target.parent
            assert temporary.suffix == ".txt"
            temporary.write_text(text)
        assert target.read_text() == text
    assert left_in(target.parent) == ["a.txt"]


def test_removes_leftovers_of_a_killed_writer(tmp_path: Path) -> None:
    target = tmp_path / "state[1].bin"
    script = (
        "import os, pathlib, signal, sys; from simplenet import files\n"
        "with files.replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    for name in (target, tmp_path / "other.bin"):
        subprocess.run([sys.executable, "-c", script, name], cwd=ROOT)
    target.write_text("whole")
    assert len(left_in(tmp_path)) == 3
    files.remove_leftovers(target)
    assert len(left_in(tmp_path)) == 2
    assert target.read_text() == "whole"
    assert any(name.startswith(".other") for name in left_in(tmp_path))


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with files.replacing(tmp_path / "a"):
        pass
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_in_the_block_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), files.replacing(target) as temporary:  # noqa: PT012, the block is what is tested
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert left_in(tmp_path) == ["a.txt"]


def test_the_disk_fills_up(tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk: the kernel refuses the write in the same way."""
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    code = f"""
import resource
from simplenet import cli, files
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
def main():
    with files.replacing({str(target)!r}) as temporary:
        temporary.write_bytes(bytes(5000))
    return 0
cli.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: cannot write {target}: File too large; the old file is unchanged; free some space\n"
    assert target.read_bytes() == b"old"
    assert left_in(tmp_path) == ["a.bin"]


def test_a_folder_under_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = "a file is where a folder should be; choose a folder you can write to"
    with pytest.raises(SimpleNetError, match=message), files.replacing(tmp_path / "file" / "a"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="POSIX devices")
def test_devices_and_folders_are_not_replaced(tmp_path: Path) -> None:
    """A FIFO stands for /dev/null, which a failure of this test would replace."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "fifo", tmp_path / "folder"):
        before = path.stat()
        with pytest.raises(SimpleNetError, match="not a regular file"), files.replacing(path):
            pass
        assert path.stat() == before


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
def test_impossible_names(tmp_path: Path, path: str) -> None:
    with pytest.raises(SimpleNetError, match="cannot write"), files.replacing(tmp_path / path):
        pass


def test_a_symbolic_link_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with files.replacing(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(SimpleNetError, match="cannot write"), files.replacing(tmp_path / "a"):
        pass


def test_a_broken_pipe_is_not_converted(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), files.replacing(tmp_path / "a"):
        raise BrokenPipeError
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("name", ["\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 80 + ".png", "x" * 251 + ".png"])
def test_a_name_of_maximum_length(tmp_path: Path, name: str) -> None:
    with files.replacing(tmp_path / name) as temporary:
        temporary.write_text("new")
    assert left_in(tmp_path) == [name]


def test_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(content)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("path", ["~", "~/images"])
def test_home_of_a_user_without_one_is_refused(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(UsageError, match=f"no home folder for {path}; type a path without ~"):
        files.expand_home(path)
    assert files.expand_home("~backup.png") == "~backup.png"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_too_many_open_files_say_what_to_type(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with (
        pytest.raises(SimpleNetError, match=r"cannot write .*oo many open files.*; allow more open files: ulimit -n"),
        files.replacing(tmp_path / "a"),
    ):
        pass
