"""``edgekit bench --input``: samples in a NumPy file, looked at before anything is measured on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import DataError
from edgekit.files import opened

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["cut", "refuse_misfit"]


def refuse_misfit(source: Path, inputs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Raise DataError if the samples of a .npy differ in shape from the file's only input."""
    array = _read_samples(source)
    names = array.dtype.names or ()
    if inputs and len(names) > 1 and len(names) != len(inputs):
        raise DataError(
            "these samples don't fit the file",
            where=str(source),
            got=f"arrays for {', '.join(names)}",
            expected=f"what {path.name} takes: {', '.join(str(one.get('name')) for one in inputs)}",
        )
    shape = list(inputs[0].get("shape") or ()) if len(inputs) == 1 and not names else []
    fits = len(shape) == array.ndim and all(
        not isinstance(size, int) or size < 1 or size == given
        for size, given in zip(shape[1:], array.shape[1:], strict=False)
    )
    if shape and not fits:
        raise DataError(
            "these samples don't fit the file",
            where=str(source),
            got=f"shape {array.shape}",
            expected=f"what {path.name} takes: {' × '.join(map(str, shape))}",
        )


def _by_name(arrays: dict[str, npt.NDArray[Any]], source: Path) -> npt.NDArray[Any]:
    """Several inputs as one array of samples."""
    from edgekit.runtimes.device.runtimes import packed

    if not arrays or len({len(one) if one.ndim else -1 for one in arrays.values()}) != 1:
        raise DataError(
            "inputs of a sample go together, and these differ in number",
            where=str(source),
            got=", ".join(f"{name} {one.shape}" for name, one in arrays.items()) or "an empty file",
            expected="an array (N, …) for each input, by its name",
        )
    rows: npt.NDArray[Any] = packed(list(arrays.items()))
    return rows


def cut(source: Path, target: Path, samples: int) -> Path:
    """The first ``samples`` of a .npy (0: one, which is timed), or of a .npz with an array for each input.

    Raises DataError.
    """
    import numpy as np

    chosen = _read_samples(source)[: samples or 1]
    for name in chosen.dtype.names or ("",):
        _refuse_values(chosen[name] if name else chosen, f"{source}: {name}" if name else str(source))
    np.save(target, chosen)
    return target


def _read_samples(source: Path) -> npt.NDArray[Any]:
    """What a .npy holds, or a .npz as one array. Raises DataError: no such file, damaged, or no samples."""
    import numpy as np

    try:
        with opened(source) as stream:
            zipped = stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
            stream.seek(0)
            if zipped:
                with np.load(stream, allow_pickle=False) as found:
                    loaded = _by_name({name: found[name] for name in found.files}, source)
        if not zipped:
            loaded = np.load(source, mmap_mode="r", allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            raise ValueError("no array")
    except DataError:
        raise
    except Exception as error:  # zip, deflate and the header of an array each have failures of their own
        got = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(
            "these samples can't be read",
            where=str(source),
            got=got,
            expected="a .npy of numbers (N, …), or an .npz with one for each input",
        ) from None
    if loaded.ndim < 1 or not loaded.size:
        raise DataError("there are no samples", where=str(source), got=f"shape {loaded.shape}")
    return loaded


def _refuse_values(values: npt.NDArray[Any], where: str) -> None:
    """Raise DataError for what no model takes: no real numbers, none at all, or infinite ones and NaN."""
    import numpy as np

    if values.dtype.kind not in "biuf":
        raise DataError("samples have to be real numbers", where=where, got=f"type {values.dtype}")
    if not values.size:
        raise DataError("the samples are empty", where=where, got=f"shape {values.shape}")
    if values.dtype.kind == "f":
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            raise DataError(
                "samples hold values that are not finite",
                where=where,
                got=f"NaN or infinity in sample {int(np.argmin(finite))}",
            )
