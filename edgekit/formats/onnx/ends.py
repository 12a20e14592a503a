"""What an ONNX file leaves to others: weights in files beside it, and sizes of its input that are free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import ExportError, InputError
from edgekit.files import atomic_write, inside, require_file

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

_INTEGERS = (5, 6, 7)  # int16, int32, int64 of TensorProto

__all__ = ["companions", "put_whole", "refuse_free", "rename", "size_of"]


def companions(path: Path) -> tuple[Path, ...]:
    """The files beside an ONNX file that hold weights of it; none for other kinds, or a damaged one.

    Raises InputError for one that names something else than a file in its own folder.
    """
    model = _model(path)
    if model is None:
        return ()
    names = {
        entry.value
        for tensor in _stored_outside(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    found = []
    for name in sorted(names):
        try:
            one = inside(path.parent, name)
            if one.exists():
                require_file(one)
                found.append(one)
        except (OSError, ValueError) as error:
            raise InputError(
                "the file has its weights where none belong",
                where=str(path),
                got=str(error.strerror if isinstance(error, OSError) else error),
                expected="files beside it",
            ) from None
    return tuple(found)


def size_of(path: Path) -> int:
    """Bytes of a file, and of those beside it that belong to it."""
    return sum(one.stat().st_size for one in (path, *companions(path)))


def refuse_free(path: Path) -> None:
    """Raise InputError for an ONNX file that doesn't say how large its input is, the batch apart.

    Timed on made-up sizes it would be fast at nothing.
    """
    model = _model(path)
    known = set() if model is None else {one.name for one in model.graph.initializer}
    inputs = [] if model is None else [one for one in model.graph.input if one.name not in known]
    free = []
    for value in inputs:
        sizes = [d.dim_value or d.dim_param or "?" for d in value.type.tensor_type.shape.dim]
        if any(not isinstance(size, int) for size in sizes[1:]):
            free.append(f"input {value.name!r}: {' × '.join(str(size) for size in sizes)}")
    if free:
        raise InputError(
            "the file leaves sizes of its input free, and latency depends on them",
            where=str(path),
            got="; ".join(free),
            expected="samples of the size that it will be used with",
            next="name its workload (--workload), or give preprocessed samples as a file: "
            + _made_up(inputs),
        )


def put_whole(source: Path, target: Path) -> None:
    """Copy an ONNX file byte for byte; of one with weights in other files, those as well, into one.

    Raises OSError; ExportError: the whole is more than one file can hold.
    """
    if not companions(source):
        atomic_write(target, source.read_bytes())
        return
    import onnx
    from google.protobuf.message import EncodeError

    try:
        content = onnx.load(str(source)).SerializeToString()
    except (ValueError, EncodeError) as error:  # which of them depends on protobuf's implementation
        raise ExportError(
            "the weights don't fit into one ONNX file",
            where=str(source),
            got=str(error),
            expected="below 2 GB",
        ) from error
    atomic_write(target, content)


def rename(model: ModelProto, names: Mapping[str, str]) -> None:
    """Call inputs and outputs otherwise, in place; an inner value that has such a name already gives way."""
    ends = {one.name for one in (*model.graph.input, *model.graph.output)}
    wanted = {old: new for old, new in names.items() if old in ends and old != new}
    inner = {name for node in model.graph.node for name in (*node.input, *node.output)}
    changed = {name: f"{name}_inner" for name in inner & set(wanted.values()) - set(wanted)} | wanted
    for node in model.graph.node:
        for side in (node.input, node.output):
            side[:] = [changed.get(name, name) for name in side]
    for value in (
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
        *model.graph.value_info,
    ):
        value.name = changed.get(value.name, value.name)


def _made_up(inputs: Sequence[Any]) -> str:
    """How a file of samples is made, with the sizes and types that these inputs say."""
    arrays = []
    for value in inputs:
        kind = value.type.tensor_type
        shape = (1, *(d.dim_value or 224 for d in list(kind.shape.dim)[1:]))
        whole = kind.elem_type in _INTEGERS
        made = f"numpy.ones({shape}, 'int64')" if whole else f"numpy.random.rand{shape}.astype('float32')"
        arrays.append((value.name, made))
    if len(arrays) == 1:
        return f"python -c \"import numpy; numpy.save('x.npy', {arrays[0][1]})\", then --input x.npy"
    named = ", ".join(f"'{name}': {made}" for name, made in arrays)
    return f"python -c \"import numpy; numpy.savez('x.npz', **{{{named}}})\", then --input x.npz"


def _model(path: Path) -> ModelProto | None:
    """Without the weights that lie in other files; None if it can't be read."""
    if path.suffix != ".onnx":
        return None
    try:
        import onnx
        from google.protobuf.message import DecodeError

        return onnx.load(str(path), load_external_data=False)
    except (ImportError, OSError, ValueError, DecodeError):
        return None  # whoever runs the file will say what is wrong with it


def _stored_outside(model: ModelProto) -> Iterator[TensorProto]:
    """Initialisers and constants whose numbers lie elsewhere."""
    from onnx import TensorProto as Kind

    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        yield from (one for one in graph.initializer if one.data_location == Kind.EXTERNAL)
        for node in graph.node:
            for attribute in node.attribute:
                graphs += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
                tensors = [*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])]
                yield from (one for one in tensors if one.data_location == Kind.EXTERNAL)
