"""Files decoded by several processes, whichever of them crashes.

Nothing is forked, as the caller may have threads, and no program is imported again: a worker is a fresh
Python that reads paths and writes rows into the file that it was handed. When this process ends, however it
ends, they do.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import IO, Any, TypeAlias

from edgekit.errors import DataError
from edgekit.files import disk_full
from edgekit.media.sorts import Sort, Transform

__all__ = ["CRASHED", "Answer", "decoded", "workers_for"]

# Of a row: the facts of its file, or why it can't be read.
Answer: TypeAlias = tuple[int, dict[str, Any] | str]

# Started with -P: a json.py in the current folder, which may be anybody's, isn't Python's.
_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from edgekit.media.worker import main; "
_CHILD += "main(int(sys.argv[2]), sys.argv[3], sys.argv[4])"
_AHEAD = 16  # paths that a worker has been given
_MOST = 16  # processes
_EACH = 24  # files that are worth a further process
CRASHED = "the decoder crashed"
_CRASHES = 20  # in a row without an answer: then it isn't the files


def workers_for(files: int) -> int:
    """How many processes: one for each core that this one may use."""
    return max(1, min(len(os.sched_getaffinity(0)), _MOST, -(-files // _EACH)))


def decoded(
    paths: Sequence[str],
    sort: Sort,
    transform: Transform | None,
    file: int = -1,
    workers: int | None = None,
) -> Iterator[Answer]:
    """Every row's answer, in the order in which they come.

    Args:
        paths: of the files; a row for each.
        sort: who reads them.
        transform: how they become rows of one size; None: facts alone.
        file: descriptor that row ``i`` is written to, from byte ``i * transform.row_bytes()`` on.

    Raises DiskFullError; DataError: no worker can be started.
    """
    todo = queue.SimpleQueue[int]()
    for row in range(len(paths)):
        todo.put(row)
    answers = queue.SimpleQueue[Answer | BaseException]()
    described = json.dumps(transform.to_dict()) if transform else ""
    group = [
        _Worker(todo, paths, answers, file, sort, described)
        for _ in range(workers or workers_for(len(paths)))
    ]
    try:
        for one in group:
            one.thread.start()
        for _ in range(len(paths)):
            answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            yield answer
    finally:
        for one in group:
            one.stop()


class _Worker:
    """One process, and the thread here that talks with it."""

    def __init__(
        self,
        todo: queue.SimpleQueue[int],
        paths: Sequence[str],
        answers: queue.SimpleQueue[Answer | BaseException],
        file: int,
        sort: Sort,
        described: str,
    ) -> None:
        self.todo, self.paths, self.answers = todo, paths, answers
        self.file, self.sort, self.described = file, sort, described
        self.given: deque[int] = deque()
        self.tried_again: set[int] = set()
        self.process: subprocess.Popen[str] | None = None
        self.stopped = False
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def stop(self) -> None:
        """At once; what it was doing is lost."""
        with self.lock:
            self.stopped = True
            if self.process is not None:
                self.process.kill()
        if self.thread.is_alive():
            self.thread.join(timeout=5)

    def _run(self) -> None:
        silent = 0
        try:
            while not self.stopped and (self.given or not self.todo.empty()):
                code, answered = self._talk()
                if self.stopped or not self.given:
                    continue
                silent = 0 if answered else silent + 1
                if silent > _CRASHES:
                    raise DataError(
                        f"the processes that decode {self.sort.many} end at once", got=_death(code)
                    )
                if (first := self.given[0]) in self.tried_again:
                    self.given.popleft()
                    self.answers.put((first, f"{CRASHED}: {_death(code)}"))
                self.tried_again.add(first)  # somebody may have ended the process for another reason
        except BaseException as error:
            self.answers.put(error)

    def _talk(self) -> tuple[int, int]:
        """Until nothing is left, or the process has ended: its exit code, and how many answers it gave."""
        answered = 0
        with self.lock:
            if self.stopped:
                return 0, 0
            self.process = process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                for row in self.given:
                    self._ask(process.stdin, row)
                self._fill(process.stdin)
                while self.given:
                    if not (line := process.stdout.readline()):
                        break
                    row, answer = json.loads(line)
                    self.given.remove(row)
                    answered += 1
                    self.answers.put((row, self._checked(answer)))
                    self._fill(process.stdin)
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            return process.wait(), answered
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.kill()
            process.wait()
            process.stdout.close()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-P", "-c", _CHILD, json.dumps(sys.path), str(self.file)),
                *(self.sort.reader, self.described),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(self.file,) if self.file >= 0 else (),
            text=True,
        )

    def _fill(self, stdin: IO[str]) -> None:
        while len(self.given) < _AHEAD:
            try:
                row = self.todo.get_nowait()
            except queue.Empty:
                return
            self.given.append(row)
            self._ask(stdin, row)

    def _ask(self, stdin: IO[str], row: int) -> None:
        stdin.write(json.dumps([row, self.paths[row]]) + "\n")
        stdin.flush()

    @staticmethod
    def _checked(answer: Any) -> dict[str, Any] | str:
        if isinstance(answer, dict) and "errno" in answer:
            error = OSError(answer["errno"], os.strerror(answer["errno"]))
            raise disk_full(error, "", refused=True) or error
        assert isinstance(answer, dict | str)
        return answer


def _death(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"{signal.Signals(-code).name} ({signal.strsignal(-code)})"
    return f"signal {-code}"
