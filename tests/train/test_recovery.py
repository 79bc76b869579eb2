"""After a full disk, a moved start or a broken package, a run goes on; its error says with which command."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import matplotlib.figure
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils import tensorboard

from simplenet import checkpoints, model
from simplenet.errors import DataError, SimpleNetError, SimpleNetWarning, UsageError
from simplenet.model_card import ModelCard
from simplenet.variants import VARIANTS
from tests.train.crash import crash_in_second_epoch
from train import checkpoint, cifar, imagefolder, launch
from train.recipe import Recipe

CONFIG = Recipe(epochs=2, batch_size=16, peak_learning_rate=0.01, average_decay=0.9, bf16=False)
FLAGS = ["--epochs", "2", "--batch", "16", "--learning-rate", "0.01", "--average-decay", "0.9", "--fp32"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, write_idx_set: Callable[..., Path]) -> Path:
    return write_idx_set(tmp_path_factory.mktemp("data"), train=80, test=40)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("daisy", "rose"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 255, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


@contextlib.contextmanager
def _files_up_to(size: int) -> Iterator[None]:
    """Refuse writes beyond `size` bytes of a file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "cifar-310k.safetensors")


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
@pytest.mark.parametrize("size", [1_000_000, 2_000_000], ids=["no weights", "weights but no state"])
def test_full_disk_before_the_first_save_leaves_the_output_free(size: int, small: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(small), *FLAGS, "--output", str(tmp_path / "run")]
    with _files_up_to(size), pytest.raises(SimpleNetError) as caught:
        cifar.main(arguments)
    assert str(caught.value).endswith("File too large; free some space, then type the same command again")
    assert not list(tmp_path.rglob("*.safetensors"))
    with pytest.raises(UsageError, match=r"no run to resume in .*; start one without --resume"):
        cifar.main([*arguments, "--resume"])
    assert cifar.main(arguments) == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["last", "best", "log"])
def test_full_disk_after_the_first_save_asks_for_resume(
    number: int, name: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, replace = ["--data", str(small), *FLAGS, "--output", str(tmp_path / "run")], os.replace
    state = tmp_path / "run" / checkpoint.STATE_NAME

    def full(source: Path, target: Path) -> None:
        if Path(target).stem == name and state.exists():
            raise OSError(number, os.strerror(number))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(SimpleNetError, match=r"; free some space, then type the same command with --resume$"):
            cifar.main(arguments)
    with pytest.raises(UsageError, match="holds a run already; continue it with --resume"):
        cifar.main(arguments)
    assert cifar.main([*arguments, "--resume"]) == 0
    cifar.main([*arguments[:-1], str(tmp_path / "whole")])
    one, other = _tensors(tmp_path / "run"), _tensors(tmp_path / "whole")
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (MemoryError(), "the memory is full; end other programs, then type the same command with --resume"),
        (torch.OutOfMemoryError("2 GiB"), r"GPU's memory is full \(2 GiB\); end other programs, .* with --resume"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "lower --workers, .* with --resume"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's "
                         "workers are out of shared memory. Please try to raise your shared memory limit."),
            "use --workers 0, or docker run --shm-size 1g, then type the same command with --resume",
        ),
    ],
)  # fmt: skip
def test_advice_never_asks_for_another_batch_of_a_saved_run(error: Exception, advice: str, tmp_path: Path) -> None:
    (tmp_path / checkpoint.STATE_NAME).touch()
    with pytest.raises(SimpleNetError, match=advice) as caught, launch.friendly_errors(tmp_path):
        raise error
    assert "--batch" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*does not name its classes")
@pytest.mark.parametrize("change", ["removed", "moved", "replaced by another file"])
@pytest.mark.parametrize("script", [cifar, imagefolder])
def test_resume_does_not_need_the_initial_weights(
    script: ModuleType, change: str, small: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, spec = tmp_path / "start.safetensors", VARIANTS["cifar-310k"]
    card = ModelCard(spec.name, 10, dataclasses.replace(spec.preprocessing, mean=(0.1, 0.2, 0.3)))
    checkpoints.save(start, model.create(spec.name, 10).state_dict(), card)

    def train(output: Path, initial: Path = start, **settings: Any) -> None:
        if script is cifar:
            cifar.train("fashion-mnist", "cifar-310k", output, CONFIG, small, initial=str(initial), **settings)
        else:
            imagefolder.train(photos, "cifar-310k", output, CONFIG, initial=str(initial), workers=0, **settings)

    train(tmp_path / "whole")
    crash_in_second_epoch(monkeypatch, lambda: train(tmp_path / "run"))
    if change == "replaced by another file":
        start.write_bytes(b"x")
    else:
        start.rename(tmp_path / "archive.safetensors") if change == "moved" else start.unlink()
    with pytest.raises(UsageError, match=r"holds a run with --weights .*, not random"):
        train(tmp_path / "run", Path("random"), resume=True)
    with pytest.raises(UsageError, match="no run to resume"):
        train(tmp_path / "nowhere", resume=True)
    train(tmp_path / "run", tmp_path / "archive.safetensors" if change == "moved" else start, resume=True)
    one, other = _tensors(tmp_path / "run"), _tensors(tmp_path / "whole")
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.filterwarnings("ignore:.*not used. 1 .json")  # of a run in the folder itself
@pytest.mark.parametrize("output", [None, ".", "a/b/c", "../photos/results"])
def test_output_among_the_classes_is_no_class(
    output: str | None, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    arguments = [".", "--variant", "cifar-310k", "--epochs", "2", "--batch", "8", "--workers", "0"]
    arguments += ["--output", output] if output else []
    crash_in_second_epoch(monkeypatch, lambda: imagefolder.main(arguments))
    assert imagefolder.main([*arguments, "--resume"]) == 0
    assert imagefolder.main([*arguments, "--resume"]) == 0  # its curve is no image
    other = [*arguments[:7], "--workers", "0", "--output", str(tmp_path / "elsewhere")]
    assert imagefolder.main(other) == 0
    card = checkpoints.read(tmp_path / "elsewhere/cifar-310k.safetensors").card
    assert card is not None
    assert card.labels == ("daisy", "rose")


def test_killed_first_epoch_leaves_no_class(photos: Path) -> None:
    (photos / "runs/photos-1.5m").mkdir(parents=True)
    (photos / "runs/photos-1.5m/.lock").touch()
    imagefolder.train(photos, "cifar-310k", photos / "runs/second", dataclasses.replace(CONFIG, epochs=1), workers=0)
    (photos / "runs/second/log.jsonl").rename(photos / "daisy/log.jsonl")
    shutil.rmtree(photos / "runs")
    (photos / "empty").mkdir()
    with pytest.raises(DataError, match=r"no images in .*empty"):
        imagefolder.train(photos, "cifar-310k", photos / "third", CONFIG, workers=0)


@pytest.mark.parametrize("output", ["photos/rose", "photos/daisy/../rose"])
def test_refuses_to_write_among_the_images_of_a_class(output: str, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a class's folder of images; choose another --output"):
        imagefolder.train(photos, "cifar-310k", tmp_path / output, CONFIG, workers=0)
    assert len(list((photos / "rose").iterdir())) == 10


def _raise(error: Exception) -> Callable[..., Any]:
    def function(*arguments: Any, **options: Any) -> None:
        raise error

    return function


class _BoardOnAFullDisk(SimpleNamespace):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(add_scalar=_raise(OSError(errno.ENOSPC, "No space left on device")))


BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "no matplotlib": (
        lambda patch: patch.setitem(sys.modules, "matplotlib.figure", None),
        r"no training curve was drawn \(import of matplotlib.figure halted.*; type: pip install -c constraints.txt",
    ),
    "matplotlib for another numpy": (
        lambda patch: patch.setattr(matplotlib.figure, "Figure", _raise(AttributeError("np.Inf"))),
        r"no training curve was drawn \(np.Inf\)",
    ),
    "no temporary folder": (
        lambda patch: patch.setattr("tempfile.mkdtemp", _raise(FileNotFoundError(2, "No usable temporary directory"))),
        "no training curve was drawn .*No usable temporary directory",
    ),
    "a curve that cannot be written": (
        lambda patch: patch.setattr(matplotlib.figure.Figure, "savefig", _raise(OSError(28, "No space left"))),
        "no training curve was drawn .*free some space.*the same command with --resume draws it$",
    ),
    "no TensorBoard": (
        lambda patch: patch.setitem(sys.modules, "torch.utils.tensorboard", None),
        "no TensorBoard files are written .*log.jsonl has the same values; to install it: pip install",
    ),
    "TensorBoard for another protobuf": (
        lambda patch: patch.setattr(tensorboard, "SummaryWriter", _raise(TypeError("Descriptors cannot be created"))),
        r"no TensorBoard files are written \(Descriptors cannot be created\)",
    ),
    "TensorBoard that stops writing": (
        lambda patch: patch.setattr(tensorboard, "SummaryWriter", _BoardOnAFullDisk),
        "no TensorBoard files are written .*No space left on device",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_plots_cost_one_warning(
    what: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    breaks, text = BROKEN[what]
    breaks(monkeypatch)
    with pytest.warns(SimpleNetWarning) as caught:
        assert cifar.main(["--data", str(small), *FLAGS, "--output", str(tmp_path)]) == 0
    assert len(caught) == 1
    assert re.search(text, str(caught[0].message))
    assert "\n" not in str(caught[0].message)
    assert "after 2 epochs" in capsys.readouterr().out
    assert (tmp_path / "cifar-310k.safetensors").is_file()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "docker run --shm-size 1g$"),
        (errno.ENOENT, "docker run --shm-size 1g$"),
        (errno.ENOSYS, "docker run --shm-size 1g$"),
        (errno.EMFILE, r"fewer --workers, or allow more open files: ulimit -n 4096$"),
        (errno.EAGAIN, r"fewer --workers, or allow more processes: ulimit -u 4096$"),
    ],
    ids=lambda value: errno.errorcode.get(value, "") if isinstance(value, int) else "",
)
def test_workers_that_cannot_start_say_what_to_type(
    number: int, advice: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", _raise(OSError(number, os.strerror(number))))
    arguments = [str(photos), "--variant", "cifar-310k", "--epochs", "1", "--batch", "8", "--output", str(tmp_path)]
    with pytest.raises(SimpleNetError, match=f"cannot start 1 decoding processes .*; use --workers 0, .*{advice}"):
        imagefolder.main([*arguments, "--workers", "1"])
    assert imagefolder.main([*arguments, "--workers", "0"]) == 0
