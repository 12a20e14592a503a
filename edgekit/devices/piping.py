"""One local command with files on its ends, that may take as long as bytes are moving."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from edgekit.devices.transport import Completed
from edgekit.errors import MeasurementError
from edgekit.shortage import is_shortage

_CHUNK = 1 << 16


def pipe(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    timeout_seconds: float,
    source: Path | None = None,
    offset: int = 0,
    target: Path | None = None,
) -> Completed:
    """Run a command to its end.

    ``source``, from ``offset`` on, is its standard input; ``target`` gets its standard output, which is else
    in the result. ``timeout_seconds`` starts anew with each piece that is sent or arrives.

    Raises MeasurementError: it can't be started, or nothing moved for too long.
    """
    with contextlib.ExitStack() as stack:
        feed = stack.enter_context(source.open("rb")) if source is not None else None
        sink = stack.enter_context(target.open("wb")) if target is not None else None
        if feed is not None:
            feed.seek(offset)
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL if feed is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={**os.environ, **env},
                start_new_session=True,  # Ctrl-C is edgekit's to handle
            )
        except OSError as error:
            if is_shortage(error):
                raise
            raise MeasurementError("a command can't be started", where=argv[0], got=str(error)) from None
        try:
            out, err = _pump(process, feed, sink, timeout_seconds)
            process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
    return Completed(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def _pump(
    process: subprocess.Popen[bytes], feed: IO[bytes] | None, sink: IO[bytes] | None, timeout_seconds: float
) -> tuple[bytearray, bytearray]:
    out, err = bytearray(), bytearray()
    assert process.stdout is not None
    assert process.stderr is not None
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        if feed is not None:
            assert process.stdin is not None
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
        moved = time.monotonic()
        while selector.get_map():
            ready = selector.select(max(0.0, moved + timeout_seconds - time.monotonic()))
            if not ready:
                raise MeasurementError("a command took too long", got=f"nothing for {timeout_seconds:g} s")
            for key, _ in ready:
                if key.fileobj is process.stdin:
                    assert feed is not None
                    pending = pending or feed.read(_CHUNK)
                    pending, ended = _write(process.stdin, pending)
                    if ended:
                        selector.unregister(process.stdin)
                        with contextlib.suppress(OSError):
                            process.stdin.close()
                    moved = time.monotonic()
                    continue
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    err += chunk
                elif sink is not None:
                    sink.write(chunk)
                else:
                    out += chunk
                moved = time.monotonic()
    return out, err


def _write(stream: IO[bytes], pending: bytes) -> tuple[bytes, bool]:
    """What is left of it, and whether the stream is to be closed: at the end, or when nobody reads it."""
    if not pending:
        return b"", True
    try:
        return pending[os.write(stream.fileno(), pending) :], False
    except BlockingIOError:
        return pending, False
    except OSError:  # the reader is gone; its exit code says why
        return b"", True
