"""What every test shares: a reproducible hypothesis, no user configuration, and the optional data sets."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.once import VARIABLE

# Two test processes on two cores: OpenMP threads would wait for each other, spinning. Before torch loads.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what runs in its background, and nohup what runs on, with interrupts ignored, and processes
# inherit that: Ctrl-C, which some tests send, would reach nobody, as Python then has no handler of its own.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# First calls import torch or warm a kernel up, which says nothing about the code under test: no deadline.
settings.register_profile(
    "edgekit",
    deadline=None,
    max_examples=30,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("thorough", parent=settings.get_profile("edgekit"), max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "edgekit"))

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """The folder of ``once``; processes of pytest-xdist inherit its name."""
    if not hasattr(config, "workerinput"):
        os.environ[VARIABLE] = tempfile.mkdtemp(prefix="edgekit-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(VARIABLE), ignore_errors=True)


@pytest.fixture(autouse=True)
def no_user_configuration(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Recipes, devices and measured choices of whoever runs the tests must not be found; boards may be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "no-config"))
        if request.node.get_closest_marker("device") is None:
            patch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.delenv("EDGEKIT_TRACEBACK", raising=False)
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The data sets for tests marked ``data``; the test is skipped where they are absent."""
    folder = os.environ.get("EDGEKIT_DATA")
    if not folder:
        pytest.skip("EDGEKIT_DATA is not set: it names the folder with the data sets")
    if not Path(folder).is_dir():
        pytest.skip(f"EDGEKIT_DATA names {folder}, which is no folder")
    return Path(folder)
