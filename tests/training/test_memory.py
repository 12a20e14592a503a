"""A training keeps the memory that it frees, and gives it back when it ends."""

from __future__ import annotations

import gc
import json
import platform
import subprocess
import sys
import weakref

import pytest

from edgekit.training.computing.memory import give_back

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is glibc's alone here")

# In a process of its own, as malloc's settings are the process's. Its last line is JSON.
SCRIPT = """
import json, resource
import torch
from edgekit.training.computing.memory import keeping_freed_memory

PAGE, BLOCK = resource.getpagesize(), 48 * 2**20

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE

def faults_of_a_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(BLOCK // 4) for _ in range(4)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

start = resident()
found = {"before": [faults_of_a_step() for _ in range(3)]}
with keeping_freed_memory() as kept:
    found["kept"] = kept
    found["inside"] = [faults_of_a_step() for _ in range(12)]
    found["grown_inside"] = resident() - start
found["grown_after"] = resident() - start
found["pages"] = 4 * BLOCK // PAGE
print(json.dumps(found))
"""


def test_freed_memory_stays_while_it_trains_and_goes_back_after() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kept"]
    assert min(found["before"]) > found["pages"] / 2  # blocks above 32 MiB are never kept by themselves
    assert max(found["inside"][-4:]) < found["pages"] / 100  # after the gaps between blocks have settled
    assert found["grown_inside"] > 100 * 2**20
    assert found["grown_after"] < 60 * 2**20


def test_what_refers_to_itself_is_given_back_as_well() -> None:
    class Graph:
        """Stands for a graph, whose nodes know it."""

        def __init__(self) -> None:
            self.itself = self

    gc.disable()
    try:
        graph = Graph()
        seen = weakref.ref(graph)
        del graph
        assert seen() is not None
        give_back()
        assert seen() is None
    finally:
        gc.enable()
