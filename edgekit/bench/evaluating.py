"""A file's own answers to samples, from the device: sent there in parts, so that a small board can do it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bench.session import Candidate, Layout, Session, located
from edgekit.devices.device import Device
from edgekit.devices.transport import Transport, linked
from edgekit.errors import MeasurementError
from edgekit.progress import Event, Progress, silent
from edgekit.runtimes.device.runtimes import packed
from edgekit.scratch import scratch

Answering = Callable[[Path], npt.NDArray[Any]]  # inputs (.npy) → a file's own answers

PART_BYTES = 16 << 20  # of inputs that are on a device at once; this machine reads the file where it is


def evaluate(
    artifact: Path,
    runtime: str,
    device: Device,
    inputs: Path,
    *,
    threads: int = 1,
    backend: str = "",
    batch: int = 64,
    layout: Layout = "auto",
    output_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    streaming: Mapping[str, Any] | None = None,
    part_bytes: int = PART_BYTES,
    progress: Progress = silent,
    transport: Transport | None = None,
) -> npt.NDArray[Any]:
    """The file's own answers to all ``inputs`` (.npy, (N, ...), preprocessed): (N, ...).

    A file with a fixed batch size is run with that one, any other with ``batch``. Inputs are NCHW; if the
    file takes NHWC they are transposed (``layout`` "auto" tells by the shapes; if both fit, they stay).
    ``output_shape`` is that of one output as the torch model gives it, of several by name: channels-last
    outputs that fit it transposed are brought back. Quantised outputs come back as floats. ``streaming``: of
    a file that is called step by step, its "states" and whether answers are "stacked" (see ``worker.py``).

    The device is shared with others that only compute. A connection that is lost is taken up again, and
    samples that were answered aren't run twice.

    Raises MeasurementError: the worker crashed, hung, or refused the file or the samples.
    """
    candidate = Candidate(artifact, runtime, threads, layout, backend=backend)
    with answering(
        candidate,
        device,
        batch=batch,
        output_shape=output_shape,
        streaming=streaming,
        part_bytes=part_bytes,
        progress=progress,
        transport=transport,
    ) as answer:
        return answer(inputs)


@contextmanager
def answering(
    candidate: Candidate,
    device: Device,
    *,
    batch: int = 64,
    output_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    streaming: Mapping[str, Any] | None = None,
    part_bytes: int = PART_BYTES,
    progress: Progress = silent,
    transport: Transport | None = None,
) -> Iterator[Answering]:
    """The same for several sets of inputs: the file stays loaded. Arguments and errors as ``evaluate``."""
    with linked(device, transport) as link, link.lock(exclusive=False, progress=progress):
        session = Session(candidate, link, device, progress=progress)

        def answer(inputs: Path) -> npt.NDArray[Any]:
            try:
                parts = [
                    _answers(session, link, device, part, batch, streaming or {})
                    for part in _parts(inputs, device, part_bytes, progress)
                ]
            except MeasurementError as error:
                raise located(error, candidate, device) from None
            return _channels_first(np.concatenate(parts), output_shape)

        try:
            session.open()
        except MeasurementError as error:
            session.close()
            raise located(error, candidate, device) from None
        try:
            yield answer
        finally:
            session.close()


def _parts(inputs: Path, device: Device, part_bytes: int, progress: Progress) -> Iterator[Path]:
    samples = np.load(inputs, mmap_mode="r", allow_pickle=False)
    if not len(samples):
        raise MeasurementError("there are no samples", where=inputs.name)
    size = max(1, part_bytes // max(1, samples[0].nbytes))
    if device.here or len(samples) <= size:
        yield inputs
        return
    with scratch() as folder:
        path = Path(folder) / "inputs.npy"
        for start in range(0, len(samples), size):
            np.save(path, samples[start : start + size])
            yield path
            done = min(len(samples), start + size)
            progress(Event("step", "evaluate", f"on {device.name}", done=done, total=len(samples)))


def _answers(
    session: Session, link: Transport, device: Device, inputs: Path, batch: int, streaming: Mapping[str, Any]
) -> npt.NDArray[Any]:
    target = f"{link.folder}/outputs-{os.urandom(4).hex()}.npy"
    source = link.push(inputs)
    request = {"do": "evaluate", "inputs": source, "outputs": target, "batch": batch, **streaming}
    session.ask(request, device.timeout_seconds)
    with scratch() as folder:
        copy = Path(folder) / "outputs.npy"
        link.pull(target, copy)
        outputs: npt.NDArray[Any] = np.load(copy, allow_pickle=False)
    if not device.here:  # where the inputs are the user's own
        link.run(["rm", "-f", source, target], timeout_seconds=device.timeout_seconds)
    return outputs


def _channels_first(
    outputs: npt.NDArray[Any], output_shape: Sequence[int] | Mapping[str, Sequence[int]] | None
) -> npt.NDArray[Any]:
    names = outputs.dtype.names
    if isinstance(output_shape, Mapping):
        if names is None or not set(output_shape) <= set(names):
            return outputs  # whoever knows what they are for says what is missing
        moved: npt.NDArray[Any] = packed(
            [(name, _channels_first(outputs[name], output_shape[name])) for name in output_shape]
        )
        return moved
    if names is not None:
        return outputs
    if output_shape is not None and outputs.ndim >= 4 and outputs.shape[1:] != tuple(output_shape):
        moved = np.moveaxis(outputs, -1, 1)
        if moved.shape[1:] == tuple(output_shape):
            return np.ascontiguousarray(moved)
    return outputs
