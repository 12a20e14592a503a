"""ExecuTorch programs, read without being executed."""

from __future__ import annotations

import contextlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from typer.testing import CliRunner

from edgekit.cli import app as cli
from edgekit.errors import InputError, MissingExtraError
from edgekit.formats.executorch import reading
from edgekit.formats.executorch.flatbuffer import Schema
from edgekit.formats.exporting import export
from edgekit.graph.capture import capture
from edgekit.inspecting import inspect
from edgekit.inspecting.artifact import format_of
from edgekit.runtimes import Runtime
from tests.networks import Residual, images, quantized

Files = dict[str, Path]
WEIGHTS = 8 * 3 * 9 + 8 * 8 * 9 + 5 * 8  # of Residual
METADATA = {"recipe": "test", "classes": '["ü", "b"]'}


def needed() -> None:
    pytest.importorskip("executorch", reason="needs the extra: pip install 'edgekit-toolkit[executorch]'")


class Split(nn.Module):
    """A cumulative sum and a mean of rows, which XNNPACK hasn't got, between two layers that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).cumsum(1).mean(2))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """``Residual`` in int8 and in float, and ``Split``."""
    needed()
    folder = tmp_path_factory.mktemp("programs")
    model, graph = quantized(Residual)
    torch.manual_seed(0)
    made: dict[str, tuple[Any, Any]] = {
        "int8": (graph, "int8"),
        "fp32": (model, "fp32"),
        "split": (capture(Split().eval(), images(1)), "fp32"),
    }
    found = {}
    for name, (source, precision) in made.items():
        found[name] = folder / f"{name}.pte"
        export(source, images(1), found[name], format="executorch", precision=precision, metadata=METADATA)
    return found


@pytest.fixture(scope="module")
def int8(programs: Files) -> dict[str, Any]:
    """What is told of the int8 program: a process that imports ExecuTorch takes seconds."""
    return inspect(programs["int8"])


def test_an_int8_program(int8: dict[str, Any]) -> None:
    found = int8
    assert found == json.loads(json.dumps(found))
    assert found["format"] == "executorch"
    assert found["metadata"] == METADATA
    assert [(row["name"], row["dtype"], row["shape"]) for row in found["inputs"] + found["outputs"]] == [
        ("input", "float32", [1, 3, 8, 8]),
        ("output", "float32", [1, 5]),
    ]
    assert found["integer_weights"] == {"tensors": 3, "bytes": WEIGHTS}
    assert found["float_weights"] == []
    assert found["constant_dtypes"]["int32"] == {"tensors": 3, "bytes": 4 * (8 + 8 + 5)}
    assert len(found["partitions"]) == found["executed"]["xnnpack_partitions"] == 1
    assert found["partitions"][0]["operators"]["XNNConv2d"] == 2
    assert found["portable"] == {}
    assert found["executed"]["coverage"]["share"] == 1.0
    assert found["planned_bytes"] >= 4 * (3 * 64 + 5)
    assert found["arena"]["bytes"] >= 3 * 8 * 64  # the sum, and both of its sides


def test_scales_are_those_of_the_graph(int8: dict[str, Any]) -> None:
    """To the last bit of a float32, which is more than ExecuTorch's own JSON has."""
    graph = quantized(Residual)[1]
    scales = [value for name, value in graph.named_buffers() if name.endswith("weight_scale")]
    weights = [row for row in int8["tensors"] if row["role"] == "weight"]
    expected = sorted((float(one.min()), float(one.max())) for one in scales)
    assert sorted((row["scale"]["min"], row["scale"]["max"]) for row in weights) == expected
    assert {row["scale"]["count"] for row in weights} == {5, 8}


def test_the_steps_at_both_ends_are_those_of_the_graph(programs: Files) -> None:
    quantisers = [
        node for node in quantized(Residual)[1].graph.nodes if "quantize_per_tensor" in str(node.target)
    ]
    inputs, outputs = reading.steps_at_ends(programs["int8"])
    assert inputs == {"input": float(np.float32(quantisers[0].args[1]))}
    assert outputs == {"output": float(np.float32(quantisers[-1].args[1]))}
    assert reading.steps_at_ends(programs["fp32"]) == ({"input": None}, {"output": None})


def test_what_runs_beside_xnnpack_is_told(programs: Files) -> None:
    found = reading.read(programs["split"])
    assert found["portable"] == {"aten::cumsum": 1, "aten::mean": 1}
    assert len(found["partitions"]) == 2
    assert "XNNConv2d" in found["partitions"][0]["operators"]
    assert "XNNFullyConnected" in found["partitions"][1]["operators"]
    assert [row["dtype"] for row in found["float_weights"]] == ["float32", "float32"]
    assert found["integer_weights"]["tensors"] == 0


def test_what_a_person_sees(programs: Files) -> None:
    result = CliRunner().invoke(cli.app, ["inspect", str(programs["split"])], prog_name="edgekit")
    assert result.exit_code == 0, result.stderr
    lines = " ".join(result.stdout.split())
    assert "in no partition aten::cumsum 1, aten::mean 1" in lines
    assert "partition 1 XnnpackBackend: " in lines
    assert "input: float32 1×3×8×8" in lines


def test_content_counts_more_than_the_name(programs: Files, tmp_path: Path) -> None:
    (tmp_path / "renamed.bin").write_bytes(programs["int8"].read_bytes())
    assert format_of(tmp_path / "renamed.bin") == "executorch"


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.formats.executorch import ExecuTorch

    monkeypatch.setattr(Runtime, "installed", lambda self: False)
    with pytest.raises(MissingExtraError, match=r"edgekit-toolkit\[executorch\]"):
        ExecuTorch().read(tmp_path / "x.pte")


@pytest.mark.parametrize("content", [b"hello, world\n", b"\xff\xff\xff\x7fET12" + bytes(40), bytes(100)])
def test_the_reader_refuses_what_is_no_program(programs: Files, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "none.pte").write_bytes(content)
    with pytest.raises(ValueError, match="bytes 4 to 8|points to byte"):
        reading.read(tmp_path / "none.pte")


def test_half_a_file_is_an_error_of_ours(programs: Files, tmp_path: Path) -> None:
    whole = programs["int8"].read_bytes()
    (tmp_path / "half.pte").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        InputError, match=r"half\.pte: this is not an ExecuTorch file, or it is damaged"
    ) as caught:
        inspect(tmp_path / "half.pte")
    assert caught.value.exit_code == 2


def test_a_kernel_that_the_runtime_lacks_is_named(programs: Files, tmp_path: Path) -> None:
    content = programs["split"].read_bytes()
    assert content.count(b"aten::cumsum") == 1
    (tmp_path / "made_up.pte").write_bytes(content.replace(b"aten::cumsum", b"aten::frobni"))
    with pytest.raises(ValueError, match=r"without the kernel aten::frobni\.out"):
        reading.executed(tmp_path / "made_up.pte")


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_the_reader_ends_on_damaged_files(
    programs: Files, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """An exception or a result, never a hang or a giant allocation."""
    path = tmp_path_factory.mktemp("damaged") / "x.pte"
    path.write_bytes(damaged(programs["int8"].read_bytes(), seed))
    try:
        found = reading.read(path)
    except Exception as error:
        assert not isinstance(error, MemoryError)
    else:
        json.dumps(found)


def damaged(content: bytes, seed: int) -> bytes:
    """Truncated, or with a few bytes replaced."""
    chance = random.Random(seed)
    if seed % 4 == 3:
        return content[: chance.randrange(1, len(content))]
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.randrange(len(changed))] = chance.choice((0, 128, 255, chance.randrange(256)))
    return bytes(changed)


# --- flatbuffers by their schema ---------------------------------------------------------------------------

SCHEMA = """
enum Kind : short { none = 0, some = 7 }
union Thing { Number, Other: Text }
table Number { value:float; gone:int (deprecated); last:[ushort]; raw:[ubyte]; }
table Text { text:string; }
table Root { kind:Kind; thing:Thing; many:[Text]; }  // a comment; with { braces }
root_type Root;
"""


def made(kind: int, union: int) -> bytes:
    """A buffer of the schema: a union of the given kind, and one text."""
    flatbuffers = pytest.importorskip("flatbuffers")
    builder = flatbuffers.Builder(0)
    text = builder.CreateString("ü")
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, text, 0)
    one = builder.EndObject()
    builder.StartVector(4, 1, 4)
    builder.PrependUOffsetTRelative(one)
    many = builder.EndVector()
    builder.StartVector(2, 2, 2)
    for value in (6, 5):
        builder.PrependUint16(value)
    last = builder.EndVector()
    raw = builder.CreateByteVector(b"\x00\xff")
    builder.StartObject(4)
    builder.PrependFloat32Slot(0, 1e-9, 0)
    builder.PrependUOffsetTRelativeSlot(2, last, 0)
    builder.PrependUOffsetTRelativeSlot(3, raw, 0)
    number = builder.EndObject()
    builder.StartObject(4)
    builder.PrependInt16Slot(0, kind, 0)
    builder.PrependUint8Slot(1, union, 0)
    builder.PrependUOffsetTRelativeSlot(2, {1: number}.get(union, one), 0)
    builder.PrependUOffsetTRelativeSlot(3, many, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def test_a_flatbuffer_is_read_by_its_schema() -> None:
    small = struct.unpack("<f", struct.pack("<f", 1e-9))[0]
    assert Schema(SCHEMA).read(made(7, 1)) == {
        "kind": "some",
        "thing_type": "Number",
        "thing": {"value": small, "last": [5, 6], "raw": b"\x00\xff"},
        "many": [{"text": "ü"}],
    }
    found = Schema(SCHEMA).read(made(3, 2))
    assert found["kind"] == "unknown (3)"
    assert (found["thing_type"], found["thing"]) == ("Other", {"text": "ü"})


def test_a_kind_that_the_schema_does_not_have_is_an_error() -> None:
    with pytest.raises(ValueError, match="thing of kind 9"):
        Schema(SCHEMA).read(made(7, 9))


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32))
def test_offsets_of_a_damaged_buffer_are_not_believed(seed: int) -> None:
    with contextlib.suppress(ValueError):
        Schema(SCHEMA).read(damaged(made(7, 1), seed))
