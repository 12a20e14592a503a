"""Weights from files that hold tensors and nothing else."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import WeightsError
from edgekit.files import atomic_write, what_is

__all__ = ["load_weights", "put_weights", "read_weights", "save_weights"]

_NESTS = ("state_dict", "model_state_dict", "model")  # where training scripts put the weights
_PREFIXES = ("module.", "_orig_mod.")  # added by DataParallel and torch.compile
_SHOWN = 5


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Put the weights in ``path`` into ``model``: safetensors, or what ``torch.save(model.state_dict())``
    wrote.

    Every parameter and buffer must be there with its shape (``num_batches_tracked`` may be absent); ``model``
    is untouched otherwise.

    Raises:
        WeightsError: no such file, not readable, more than plain tensors in it (code in a pickle is never
            executed), NaN, or names and shapes that don't fit; then every fault is listed.
    """
    put_weights(model, read_weights(path), str(path))


def put_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """The same with weights that were read. ``where``: the file, for messages. Raises WeightsError."""
    _check_fit(model.state_dict(), weights, where)
    model.load_state_dict(weights, strict=False)


def save_weights(model: nn.Module, path: Path) -> None:
    """All parameters and buffers, tied ones each by its own name, as safetensors; whole or not at all.

    Raises DiskFullError.
    """
    from safetensors.torch import save

    state = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    atomic_write(path, save(state))


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors in ``path`` by name, on the CPU. Raises WeightsError as ``load_weights`` does."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            "no such weights file",
            where=str(path),
            got=what_is(path),
            expected="a .safetensors or .pt file",
        )
    loaded = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    for nest in _NESTS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(nest), Mapping):
            loaded = loaded[nest]
            break
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(k, str) for k in loaded):
        raise WeightsError(
            "the file holds no weights by name",
            where=str(path),
            got=type(loaded).__name__,
            expected="a state_dict",
        )
    return _plain(loaded, path)


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise WeightsError("not a readable safetensors file", where=str(path), got=str(error)) from error


def _torch_file(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about TorchScript archives, which are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            "the file is not plain tensors, and was not executed",
            where=str(path),
            got=_refused(error),
            expected="a state_dict: torch.save(model.state_dict(), path), or safetensors",
            next="if you trust the file, load it where it was made and save only the state_dict",
        ) from error
    except Exception as error:  # torch.load raises whatever a damaged archive runs into
        raise WeightsError(
            "not a readable weights file",
            where=str(path),
            got=_first_sentence(error),
            expected="a complete file",
        ) from error


def _first_sentence(error: Exception) -> str:
    """What a reader said, in one line."""
    return " ".join((str(error).strip() or type(error).__name__).split("\n", 1)[0].split())[:300]


def _refused(error: Exception) -> str:
    """What stopped the unpickler, without its advice to switch the protection off."""
    found = re.search(r"(unsupported )?GLOBAL \S+", str(error), flags=re.IGNORECASE)
    return found.group() if found else "a pickle of something else than tensors"


def _plain(loaded: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Names without wrappers' prefixes; only tensors; all finite."""
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in loaded)), None):
        loaded = {name.removeprefix(prefix): value for name, value in loaded.items()}
    others = [name for name, value in loaded.items() if not isinstance(value, Tensor)]
    if others:
        raise WeightsError("not only tensors in the file", where=str(path), got=_some(others))
    broken = [n for n, v in loaded.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if broken:
        raise WeightsError("weights hold NaN or infinity", where=str(path), got=_some(broken))
    return dict(loaded)


def _check_fit(wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor], where: str) -> None:
    missing = [n for n in wanted if n not in weights and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in weights if n not in wanted]
    shapes = [
        f"{n} is {tuple(weights[n].shape)}, the model has {tuple(wanted[n].shape)}"
        for n in wanted
        if n in weights and weights[n].shape != wanted[n].shape
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    faults = [f"{len(names)} {what}: {_some(names)}" for what, names in found if names]
    if faults:
        raise WeightsError(
            "the weights don't fit the model",
            where=where,
            got="; ".join(faults),
            expected=f"the model's {len(wanted)} tensors",
            next="build the model with the settings that it was trained with",
        )


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
