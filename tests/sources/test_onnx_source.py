"""``edgekit compress FILE.onnx --data DIR``: the whole way, and what is refused before any work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from edgekit import load_model, load_workload
from edgekit.cli.app import app
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions
from edgekit.sources.onnx.nodes import OPS, Op
from edgekit.sources.request import Source
from edgekit.tensors import NamedTensors
from tests.pictures.made import folder as photos

QUICK = ("--set", "benchmark.min_seconds=0.01", "--set", "diagnose.samples=0", "--quiet", "--json")


def network(batch: int | str = 1, classes: int = 2) -> Any:
    """(N, 3, 32, 32) "image" to "scores"."""
    random = np.random.default_rng(0)

    def values(*shape: int) -> Any:
        return (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)

    constants = {"c.weight": values(8, 3, 3, 3), "c.bias": values(8), "fc.weight": values(classes, 8)}
    nodes = [
        helper.make_node(
            "Conv", ["image", "c.weight", "c.bias"], ["a"], "c", strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        helper.make_node("Relu", ["a"], ["r"], "act"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Reshape", ["p", "to"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "fc.weight"], ["scores"], "fc", transB=1),
    ]
    constants["to"] = np.array([batch if batch == 1 else -1, 8], dtype=np.int64)
    return _model(
        nodes,
        constants,
        {"image": (TensorProto.FLOAT, [batch, 3, 32, 32])},
        {"scores": (TensorProto.FLOAT, [batch, classes])},
    )


def _model(
    nodes: list[Any], constants: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Any]
) -> Any:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, *about) for name, about in inputs.items()],
        [helper.make_tensor_value_info(name, *about) for name, about in outputs.items()],
        [numpy_helper.from_array(one, name) for name, one in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    onnx.save(network(), tmp_path / "model.onnx")
    return tmp_path


def called(*arguments: str) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_whole_way_of_a_file_for_one_sample(place: Path) -> None:
    done = called("compress", "model.onnx", "--data", "photos", "--recipe", "quick", "-o", "run", *QUICK)
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    run = place / "run"
    original = next(one for one in report["artifacts"] if one["file"] == report["reference"])
    assert (run / original["file"]).read_bytes() == (place / "model.onnx").read_bytes()
    assert report["baseline"]["accuracy"] == original["accuracy"]
    assert original["snr_db"] > 100
    (source,) = [one for one in report["warnings"] if one["kind"] == "source"]
    assert "model.onnx as it was given" in source["message"]
    made = onnx.load(run / "artifacts" / "model_int8.onnx")
    assert [one.name for one in made.graph.input] == ["image"]
    assert [one.name for one in made.graph.output] == ["scores"]
    assert any(one.op_type == "QuantizeLinear" for one in made.graph.node)
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(
        str(run / "artifacts" / "model_int8.tflite")
    )
    signature = interpreter.get_signature_list()["serving_default"]
    assert signature == {"inputs": ["image"], "outputs": ["scores"]}
    # What it became isn't taken for a float file, and a run is opened by the file that it keeps.
    refused = called("compress", "run/artifacts/model_int8.onnx", "--data", "photos", "--recipe", "quick")
    assert refused.exit_code == 2
    assert "quantised already" in refused.stderr
    assert load_workload(str(run / "workload.py")).name == "model"


def test_init_writes_the_same(place: Path) -> None:
    done = called(
        "init", "model.onnx", "--data", "photos", "--mean", "0.5", "--std", "0.25,0.25,0.2", "--quiet"
    )
    assert done.exit_code == 0, done.stderr
    text = Path("my_workload.py").read_text()
    assert "mean=(0.5,)" in text
    one, other = (
        load_workload("my_workload.py"),
        load_workload(Source("model.onnx", "photos", mean=(0.5,), std=(0.25, 0.25, 0.2))),
    )
    assert one.fingerprint() == other.fingerprint()


@pytest.mark.wide
def test_a_float_file_in_another_format(place: Path) -> None:
    done = called("export", "model.onnx", "--format", "litert", "-o", "made", "--quiet", "--json")
    assert done.exit_code == 0, done.stderr
    assert [Path(one["path"]).name for one in json.loads(done.stdout)] == ["model_fp32.tflite"]


def test_an_export_compares_with_the_given_file_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = ("export", "model.onnx", "--format", "onnx", "-o", "made", "--quiet")
    assert called(*export).exit_code == 0
    assert [one.name for one in Path("made").iterdir()] == ["model_fp32.onnx"]
    read_as = OPS["Relu"]
    monkeypatch.setitem(OPS, "Relu", Op(lambda node, x: x.abs(), read_as.host))
    refused = called(*export[:-2], "other", "--quiet")
    assert refused.exit_code == 2
    assert "read from the file answers otherwise than the file" in " ".join(refused.stderr.split())
    assert not Path("other").exists()


def test_an_export_takes_no_workload_beside_a_model_file(place: Path) -> None:
    refused = called("export", "model.onnx", "no_such_workload.py", "-o", "made", "--quiet")
    assert refused.exit_code == 2
    assert "a model file is the source itself" in refused.stderr
    assert "no_such_workload.py" in refused.stderr


def test_a_file_within_a_function_is_guessed_about_as_it_is_by_name(place: Path) -> None:
    Path("net.py").write_text(
        "from edgekit import ImageTransform, load_model\n\n"
        "def model():\n    return load_model('model.onnx')\n\n"
        "def said():\n"
        "    made = load_model('model.onnx')\n"
        "    made.transform = ImageTransform((32, 32), mean=(0.5,), std=(0.5,))\n"
        "    return made\n"
    )
    told = called("init", "net.py:model", "--data", "photos").stderr
    assert "doesn't say how its pictures were scaled: ImageNet's mean and std" in " ".join(told.split())
    said = called("init", "net.py:said", "--data", "photos", "--force")
    assert said.exit_code == 0
    assert "were scaled" not in " ".join(said.stderr.split())
    for function in ("model", "said"):
        refused = called("init", f"net.py:{function}", "--data", "photos", "--size", "64", "--force")
        assert refused.exit_code == 2
        assert "32 x 32, which is the only one" in " ".join(refused.stderr.split())


def _integer(place: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["scores"]),
    ]
    ends = (TensorProto.FLOAT, ["batch", 3, 32, 32])
    onnx.save(_model(nodes, {"s": np.float32(0.1)}, {"image": ends}, {"scores": ends}), place / "model.onnx")


def _loop(place: Path) -> None:
    model = network()
    model.graph.node[1].op_type, model.graph.node[1].domain = "Det", ""
    onnx.save(model, place / "model.onnx")


def _elsewhere(place: Path) -> None:
    model = network()
    (place / "outside").mkdir()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../outside/weights")
    (place / "inside").mkdir()
    onnx.save(model, place / "model.onnx")


def _cut(place: Path) -> None:
    content = (place / "model.onnx").read_bytes()
    (place / "model.onnx").write_bytes(content[: len(content) // 2])


def _other_classes(place: Path) -> None:
    onnx.save(network(classes=7), place / "model.onnx")


def _gone(place: Path) -> None:
    (place / "model.onnx").unlink()


def _folder(place: Path) -> None:
    _gone(place)
    (place / "model.onnx").mkdir()


def _nothing(place: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "more", "told"),
    [
        (_nothing, ["--data", "photos", "--recipe", "mobile"], "isn't distilled or pruned"),
        (_nothing, ["--recipe", "quick"], "needs data"),
        (
            _nothing,
            ["--data", "photos", "--size", "64", "--recipe", "quick"],
            "32 x 32, which is the only one",
        ),
        (_nothing, ["--data", "photos", "--mean", "a", "--recipe", "quick"], "these are no numbers"),
        (_nothing, ["--data", "photos", "--mean", "1,2", "--recipe", "quick"], "one for each of 3 channels"),
        (_nothing, ["--data", "photos", "--weights", "w.pth", "--recipe", "quick"], "takes no weights"),
        (_integer, ["--data", "photos", "--recipe", "quick"], "QuantizeLinear (1), DequantizeLinear (1)"),
        (_loop, ["--data", "photos", "--recipe", "quick"], "Det 'act'"),
        (_elsewhere, ["--data", "photos", "--recipe", "quick"], "weights where none belong"),
        (_cut, ["--data", "photos", "--recipe", "quick"], "not an ONNX file, or it is damaged"),
        (_other_classes, ["--data", "photos", "--recipe", "quick"], "7 outputs, 2 classes"),
        (_gone, ["--data", "photos", "--recipe", "quick"], "can't be read"),
        (_folder, ["--data", "photos", "--recipe", "quick"], "can't be read"),
    ],
)
def test_refused_in_one_message(
    spoil: Callable[[Path], None], more: list[str], told: str, place: Path
) -> None:
    spoil(place)
    done = called("compress", "model.onnx", *more, "--quiet")
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.split())
    assert not Path("runs").exists()


def test_texts_and_several_ends_by_their_names(place: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["e"], "embed"),
        helper.make_node("Unsqueeze", ["attention_mask", "last"], ["m"], "wide"),
        helper.make_node("Cast", ["m"], ["f"], "float", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["e", "f"], ["k"], "masked"),
        helper.make_node("ReduceMean", ["k"], ["pooled"], "mean", axes=[1], keepdims=0),
        helper.make_node("Gemm", ["pooled", "w"], ["logits"], "head", transB=1),
    ]
    random = np.random.default_rng(0)
    constants = {
        "table": random.normal(size=(50, 8)).astype(np.float32),
        "last": np.array([-1], dtype=np.int64),
        "w": random.normal(size=(3, 8)).astype(np.float32),
    }
    ids = (TensorProto.INT64, ["batch", 6])
    model = _model(
        nodes,
        constants,
        {"input_ids": ids, "attention_mask": ids},
        {"logits": (TensorProto.FLOAT, ["batch", 3]), "pooled": (TensorProto.FLOAT, ["batch", 8])},
    )
    onnx.save(model, place / "text.onnx")
    import torch

    ours = load_model("text.onnx")
    example = NamedTensors(
        {"input_ids": torch.randint(0, 50, (2, 6)), "attention_mask": torch.ones(2, 6, dtype=torch.int64)}
    )
    told = ours(**example.as_dict())
    assert list(told) == ["logits", "pooled"]
    export(
        ours,
        example,
        place / "again.onnx",
        format="onnx",
        precision="fp32",
        metadata={},
        options=ExportOptions(),
    )
    again = onnx.load(place / "again.onnx").graph
    assert [one.name for one in again.input] == ["input_ids", "attention_mask"]
    assert [one.name for one in again.output] == ["logits", "pooled"]
    (place / "queries.csv").write_text("text,label\n" + "".join(f"word {n},{n % 3}\n" for n in range(30)))
    done = called("compress", "text.onnx", "--data", "queries.csv", "--recipe", "quick", "--quiet")
    assert done.exit_code == 2
    assert 'model.tokenizer = "FOLDER"' in " ".join(done.stderr.split())


def test_channels_last(place: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["image"], ["t"], "turn", perm=[0, 3, 1, 2]),
        *network("batch").graph.node,
    ]
    nodes[1].input[0] = "t"
    known = network("batch").graph.initializer
    model = _model(
        nodes,
        {one.name: numpy_helper.to_array(one) for one in known},
        {"image": (TensorProto.FLOAT, ["batch", 32, 32, 3])},
        {"scores": (TensorProto.FLOAT, ["batch", 2])},
    )
    onnx.save(model, place / "last.onnx")
    onnx.save(network("batch"), place / "first.onnx")
    import torch

    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(load_model("last.onnx")(x), load_model("first.onnx")(x))
    assert load_workload(Source("last.onnx", "photos")).example(2).shape == (2, 3, 32, 32)
