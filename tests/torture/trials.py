"""Commands that are killed, signalled or starved at random, and given again: what a machine may do to a run.

Each trial draws from a seed, ends with the same command undisturbed, and compares the files that it leaves
with those of a run that nobody disturbed. Shared by test_trouble.py and benchmarks/torture.py.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.torture.trouble import COMMANDS, Ended, Machine, send

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
DEATHS = (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGKILL, -signal.SIGBUS)
LEFT_ALONE = 15.0  # seconds that a killed command's children may take to see that they are alone


@dataclass
class Trial:
    """What became of one: ``hits`` disturbances reached the command, ``faults`` is what must not be.

    ``deaths``: how often it ended without a word, of too little memory.
    """

    kind: str
    command: str
    seed: str
    hits: int = 0
    told: list[str] = field(default_factory=list)
    deaths: int = 0
    faults: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return vars(self)


def killed(machine: Machine, name: str, seed: str, number: int = signal.SIGKILL) -> Trial:
    """Disturbed by a signal one to three times at random moments, then left alone."""
    random, trial = Random(seed), Trial(signal.Signals(number).name, name, seed)
    machine.undisturbed(name)
    with _place(machine, name) as folder:
        for _ in range(random.choice((1, 1, 2, 3))):
            delay = random.uniform(0, machine.seconds[name])
            ended = machine.run(name, folder, kill=(number, delay))
            if ended.code == 0:
                continue
            trial.hits += 1
            trial.told.append(_last_line(ended.text))
            if number == signal.SIGINT:
                _expect(trial, ended, (130, -signal.SIGINT))
            elif ended.code != -number:
                _expect(trial, ended, (128 + number,))
            _alone(trial, folder)
        _finishes(machine, trial, folder)
    return trial


def orphaned(machine: Machine, name: str, seed: str) -> Trial:
    """One of its children is killed at a random moment, as the kernel does where memory runs out.

    The command goes on by itself, or says so and goes on when it is given again.
    """
    random, trial = Random(seed), Trial("a killed child", name, seed)
    machine.undisturbed(name)
    with _place(machine, name) as folder:
        moment, stop = time.monotonic() + random.uniform(0, machine.seconds[name]), threading.Event()

        def kill_one() -> None:
            while not stop.wait(0.005):
                if time.monotonic() > moment and (children := _below(folder)):
                    send(random.choice(children), signal.SIGKILL)
                    trial.hits += 1
                    return

        killer = threading.Thread(target=kill_one)
        killer.start()
        ended = machine.run(name, folder)
        stop.set()
        killer.join()
        if ended.code != 0:
            trial.told.append(_message(ended.text))
            _expect(trial, ended, (1, 2))
        _alone(trial, folder)
        _finishes(machine, trial, folder)
    return trial


def starved(machine: Machine, name: str, seed: str, kind: str) -> Trial:
    """With too little of something once or twice, then with enough of it."""
    random, trial = Random(seed), Trial(kind, name, seed)
    machine.undisturbed(name)
    with _place(machine, name) as folder:
        for _ in range(random.choice((1, 1, 2))):
            with STARVED[kind](random, folder, COMMANDS[name].place) as how:
                ended = machine.run(name, folder, **how)
            if ended.code == 0:
                continue
            trial.hits += 1
            trial.told.append(_message(ended.text))
            if kind == "little memory" and ended.code in DEATHS and not ended.hung:
                trial.deaths += 1  # C++ that gets no memory has nobody to tell
            else:
                _expect(trial, ended, (1, 2) if kind == "little memory" else (2,))
            _alone(trial, folder)
        _finishes(machine, trial, folder)
    return trial


@contextmanager
def _place(machine: Machine, name: str) -> Iterator[Path]:
    folder = machine.folder / "trial"
    shutil.rmtree(folder, ignore_errors=True)
    machine.prepare(name, folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _finishes(machine: Machine, trial: Trial, folder: Path) -> None:
    """The same command, undisturbed, ends with the files that it should, and leaves nothing behind."""
    ended = machine.run(trial.command, folder)
    if ended.code != 0:
        trial.faults.append(f"doesn't go on, exit code {ended.code}: {ended.text[-2000:]}")
        return
    found = COMMANDS[trial.command].result(folder)
    if found != machine.expected[trial.command]:
        expected = machine.expected[trial.command]
        other = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
        trial.faults.append(f"other files: {', '.join(other)}")
    if left := left_behind(folder):
        trial.faults.append(f"left behind: {', '.join(left)}")


def left_behind(folder: Path) -> list[str]:
    """What no command may leave when it ended by itself."""
    found = [*(folder / "tmp").glob("*edgekit*"), *folder.rglob(".*.tmp")]
    return [one.relative_to(folder).as_posix() for one in found]


def _expect(trial: Trial, ended: Ended, codes: tuple[int, ...]) -> None:
    """One message, and an exit code that says who has to do something about it."""
    if ended.hung:
        trial.faults.append(f"hangs: {ended.text[-3000:]}")
    elif ended.code not in codes or "failed unexpectedly" in ended.text or "Traceback" in ended.text:
        trial.faults.append(f"exit code {ended.code}: {ended.text[-3000:]}")


def _alone(trial: Trial, folder: Path) -> None:
    """Children of a command that is gone end, too."""
    until = time.monotonic() + LEFT_ALONE
    while left := _below(folder, forked=True):
        if time.monotonic() > until:
            trial.faults.append(f"processes are left: {', '.join(map(str, left))}")
            return
        time.sleep(0.1)


def _below(folder: Path, *, forked: bool = False) -> list[int]:
    """The processes that a command in this folder started, by their environment. ``forked``: itself as well,
    whose current folder it is.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            mark = f"TMPDIR={folder}/tmp".encode()
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            started = mark in (path / "environ").read_bytes()
            if state != "Z" and (started or (forked and (path / "cwd").readlink() == folder)):
                found.append(int(path.name))
        except OSError:
            continue
    return found


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def _message(text: str) -> str:
    """The message's first line, as people see it."""
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    return lines[-1][:200] if lines else _last_line(text)


# --- too little of something -----------------------------------------------------------------------------

How = dict[str, Any]


@contextmanager
def _disk(random: Random, folder: Path, place: str) -> Iterator[How]:
    """A small disk where it writes, or where TMPDIR is; later it is a large one."""
    size = random.choice((16, 64, 200, 500, 1000)) << 10
    with mounted(folder / random.choice((place, "tmp")), size):
        yield {}


@contextmanager
def _read_only(random: Random, folder: Path, place: str) -> Iterator[How]:
    with mounted(folder / random.choice((place, "tmp")), 0):
        yield {}


@contextmanager
def _file_size(random: Random, folder: Path, place: str) -> Iterator[How]:
    yield {"limits": {"FSIZE": random.choice((3000, 5000, 20_000, 50_000, 100_000))}}


@contextmanager
def _descriptors(random: Random, folder: Path, place: str) -> Iterator[How]:
    yield {"limits": {"NOFILE": random.randint(5, 40)}}


@contextmanager
def _memory(random: Random, folder: Path, place: str) -> Iterator[How]:
    yield {"limits": {"AS": random.randint(0, 600) << 20}}


STARVED: dict[str, Callable[[Random, Path, str], Any]] = {
    "a full disk": _disk,
    "a place that can't be written": _read_only,
    "a file size limit": _file_size,
    "few descriptors": _descriptors,
    "little memory": _memory,
}
MOUNTED = ("a full disk", "a place that can't be written")


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[None]:
    """The folder on a disk of so many bytes; 0: on one that is only read. What it holds stays in it."""
    aside = folder.with_name(f"{folder.name} aside")
    shutil.copytree(folder, aside)
    used = sum(one.stat().st_size + 8192 for one in aside.rglob("*"))
    options = f"size={max(used + size, 16 << 10)}"
    _mount("-t", "tmpfs", "-o", options, "edgekit-torture", str(folder))
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        if not size:
            _mount("-o", "remount,ro", str(folder))
        yield
    finally:
        shutil.rmtree(aside)
        shutil.copytree(folder, aside, symlinks=True)
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)
        shutil.rmtree(folder)
        aside.rename(folder)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def can_mount(folder: Path) -> bool:
    """Whether this user may mount anything."""
    (folder / "x").mkdir()
    try:
        with mounted(folder / "x", 1 << 20):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def trials(seed: int, kills: int, starvings: int, *, mounts: bool) -> Iterator[tuple[str, str, str]]:
    """(kind, command, seed of the trial): kills, other signals, killed children, starved commands.

    Compress has most of the stages, and every third trial.
    """
    random = Random(f"trials-{seed}")
    others = [name for name in COMMANDS if name != "compress"]
    kinds = [kind for kind in STARVED if mounts or kind not in MOUNTED]
    drawn = [("SIGKILL", index) for index in range(kills)]
    drawn += [(SIGNALS[index % len(SIGNALS)].name, index) for index in range(kills // 2)]
    drawn += [("a killed child", index) for index in range(kills // 4)]
    drawn += [(kinds[index % len(kinds)], index) for index in range(starvings)]
    for kind, index in drawn:
        if kind == "a killed child":
            yield kind, random.choice(("compress", "bench", "bundle")), f"{kind}-{seed}-{index}"
            continue
        name = "compress" if random.random() < 1 / 3 else random.choice(others)
        yield kind, name, f"{kind}-{seed}-{index}"


def tried(machine: Machine, kind: str, name: str, seed: str) -> Trial:
    """One of ``trials``."""
    if kind == "a killed child":
        return orphaned(machine, name, seed)
    if kind in STARVED:
        return starved(machine, name, seed, kind)
    return killed(machine, name, seed, signal.Signals[kind])
