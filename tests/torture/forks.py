"""A process that has imported everything, and forks one for each command line that it is told.

A line in: JSON with "arguments" (of edgekit), "folder" (the current one), "log" (for stdout and stderr),
"environment", and "limits": names of resource limits with their values; those of "AS" are added to what the
process has. Lines out: the fork's process id, then its exit status as ``os.waitpid`` has it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import resource
import signal
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

MODULES = (
    "edgekit.cli.app",
    "edgekit.bundle.writing",
    "edgekit.bundle.targets.python",
    "edgekit.cli.views.console",
    "edgekit.diagnosis",
    "edgekit.pipeline.artifacts",
    "edgekit.pipeline.benchmarking",
    "edgekit.pipeline.chain",
    "edgekit.pipeline.diagnosing",
    "edgekit.pipeline.evaluation",
    "edgekit.pipeline.exporting",
    "edgekit.pipeline.measuring",
    "edgekit.pipeline.preflight",
    "edgekit.pipeline.pruning",
    "edgekit.pipeline.reporting",
    "edgekit.formats.litert.writing",
    "edgekit.formats.onnx.writing",
    "edgekit.report.page",
    "nncf",
    "onnxruntime",
    "onnxscript",
    "sklearn.datasets",
    "torch.onnx",
    "torch.export",
)


def tell(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        if name == "AS":
            found = re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())
            assert found is not None
            value += int(found[1]) << 10
        kind = getattr(resource, f"RLIMIT_{name}")
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def begin(given: dict[str, Any]) -> None:
    """In the fork: everything is as if the command had been given in a shell."""
    os.setsid()
    for number, action in ((signal.SIGINT, signal.default_int_handler), (signal.SIGXFSZ, signal.SIG_IGN)):
        signal.signal(number, action)
    os.chdir(given["folder"])
    os.environ.update(given["environment"])
    tempfile.tempdir = None
    log = os.open(given["log"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for descriptor, number in ((nowhere, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, number)
    os.close(log)
    os.close(nowhere)
    sys.argv = ["edgekit", *given["arguments"]]
    faulthandler.register(signal.SIGUSR1)
    limit(given["limits"])


if __name__ == "__main__":
    for name in MODULES:
        import_module(name)
    for name in ("litert_torch", "ai_edge_litert.interpreter"):
        with contextlib.suppress(ImportError):
            import_module(name)
    from edgekit.cli.app import main

    while line := sys.stdin.readline():
        given = json.loads(line)
        child = os.fork()
        if child == 0:
            begin(given)
            end: BaseException | None = None
            try:
                main()
            except BaseException as error:
                end = error
            # Not as a process ends otherwise: libraries would wait for threads that no fork has.
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            os._exit(end.code if isinstance(end, SystemExit) and isinstance(end.code, int) else 99)
        tell(str(child))
        tell(str(os.waitpid(child, 0)[1]))
