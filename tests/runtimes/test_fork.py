"""Forks: a model is used in the process that loaded it; other processes load their own or are refused; none hangs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MakeArtifact

ROOT = Path(__file__).parents[2]
START = """
import gc, os, sys
import numpy as np
import runtimes
from simplenet.errors import BackendError

def load():
    return runtimes.load(sys.argv[1], threads=2)

batch = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
model = load()
expected = [model.infer(batch) for _ in range(5)][0]

def refuses():
    try:
        model.infer(batch)
    except BackendError as error:
        assert str(error).endswith("load the artifact again here"), error
        return True

def check():
    model.close()
    assert refuses()
    try:
        with load() as own:
            np.testing.assert_array_equal(own.infer(batch), expected)
    except BackendError as error:  # its threads stay behind in the parent process
        assert model.name == "openvino" and "spawn" in str(error), error
    else:
        assert model.name != "openvino"
"""
CHILDREN = {
    "os.fork": """
child = os.fork()
if child == 0:
    check()
    del model
    gc.collect()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
""",
    "a child that ends as Python does": """
child = os.fork()
if child == 0:
    sys.exit(0 if refuses() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
""",
    "a fork while another thread infers": """
import threading
busy = threading.Event()
def work():
    while not busy.is_set():
        model.infer(batch)
thread = threading.Thread(target=work)
thread.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        os._exit(0 if refuses() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
busy.set()
thread.join()
""",
    "multiprocessing": """
import multiprocessing
process = multiprocessing.get_context("fork").Process(target=check)
process.start()
process.join()
assert process.exitcode == 0
""",
    "DataLoader": """
import torch
class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, index):
        check()
        return index
loader = torch.utils.data.DataLoader(Images(), num_workers=1, multiprocessing_context="fork")
assert [int(index) for index in loader] == [0, 1]
""",
}


FIRST_LOAD_IN_THE_CHILD = """
import os, sys
import numpy as np
import runtimes
from simplenet import artifacts

artifact = artifacts.read(sys.argv[1])
for _ in range(3):
    child = os.fork()
    if child == 0:
        with runtimes.load(artifact, threads=2) as own:
            own.infer(np.zeros((1, 32, 32, 3), np.uint8))
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


SETTINGS_IN_ANOTHER_THREAD = """
import os, signal, threading
from simplenet.model import torch_defaults

entered, leave = threading.Event(), threading.Event()
def hold():
    with torch_defaults():
        entered.set()
        leave.wait()
threading.Thread(target=hold).start()
entered.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    with torch_defaults():
        os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
leave.set()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_process_does_not_wait_for_a_thread_of_its_parent() -> None:
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SETTINGS_IN_ANOTHER_THREAD], cwd=ROOT, check=True, timeout=100
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("format", ["onnx", "openvino", pytest.param("torch", marks=pytest.mark.slow)])
def test_forked_process_refuses_the_parents_model(make_artifact: MakeArtifact, format: str, child: str) -> None:
    if child == "DataLoader" and format != "torch":
        pytest.skip("imports PyTorch, which takes seconds")
    script = START + CHILDREN[child] + "np.testing.assert_array_equal(model.infer(batch), expected)\n"
    command = [sys.executable, "-W", "ignore", "-c", script, str(make_artifact(format, "fp32").model_file.parent)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=100)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("format", ["onnx", "openvino", pytest.param("torch", marks=pytest.mark.slow)])
def test_forked_processes_load_the_first_model(make_artifact: MakeArtifact, format: str) -> None:
    folder = make_artifact(format, "fp32").model_file.parent
    command = [sys.executable, "-W", "ignore", "-c", FIRST_LOAD_IN_THE_CHILD, str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=100)
