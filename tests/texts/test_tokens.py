"""From texts to tokens, and to a workload of transformers' classifiers; nothing in a folder is run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgekit import Source, TextFiles, TextTransform, load_classes, load_workload
from edgekit.cli.app import app
from edgekit.errors import DataError, WeightsError, WorkloadError
from tests.texts.made import WORDS, table, tokenizer

pytestmark = pytest.mark.wide  # transformers takes seconds to import


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "t.csv")
    return tmp_path


def model(path: Path, kind: str = "Bert", **more: object) -> Path:
    """A folder as save_pretrained writes it, with a tokeniser."""
    import torch
    import transformers

    size = (
        {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        if kind == "Bert"
        else {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
    )
    settings = {"vocab_size": len(WORDS), "num_labels": 3, "max_position_embeddings": 16, **size, **more}
    config = getattr(transformers, f"{kind}Config")(**settings)
    torch.manual_seed(0)
    getattr(transformers, f"{kind}ForSequenceClassification")(config).save_pretrained(path)
    return tokenizer(path)


def test_tokens_are_those_of_the_vocabulary(place: Path) -> None:
    transform = TextTransform(tokenizer(place / "own"), 8)
    found = transform.encode(["Where is my CARDS?", "zebra", "the " * 20])
    words = [[WORDS[at] for at in row] for row in found["input_ids"]]
    assert words[0] == ["[CLS]", "where", "is", "my", "card", "##s", "?", "[SEP]"]
    assert words[1] == ["[CLS]", "[UNK]", "[SEP]", *["[PAD]"] * 5]
    assert words[2] == ["[CLS]", *["the"] * 6, "[SEP]"]
    assert found["attention_mask"].sum(1).tolist() == [8, 3, 8]
    assert transform.lengths(["the " * 20, "a"]).tolist() == [22, 3]
    sample = {name: one[0] for name, one in found.items()}
    assert transform.decode(sample) == "where is my cards?"


def test_the_length_keeps_99_of_100_texts_whole(place: Path) -> None:
    rows = [f"{'card ' * (1 + at % 7)},{'ab'[at % 2]},train" for at in range(400)]
    rows += [f"{'card ' * 90},a,train", "card,a,val", "card card,b,val"]
    (place / "long.csv").write_text("text,label,split\n" + "\n".join(rows))
    files, transform = TextFiles(place / "long.csv"), TextTransform(tokenizer(place / "own"))
    length, told = files.length_for(transform, 512)
    assert length == 16  # 9 tokens with the marks, in steps of 8
    assert told == "1 of 401 training texts are cut off (the longest has 92 tokens)"
    assert files.length_for(transform, 12)[0] == 12


@pytest.mark.parametrize("kind", ["Bert", "DistilBert"])
def test_a_folder_and_a_table_are_a_workload(kind: str, place: Path) -> None:
    model(place / "net", kind)
    work = load_workload(Source("hf:net", "t.csv"))
    work.check()
    assert work.classes == ("card", "rate", "top_up")
    raw = work.example(2)
    assert raw.names == ("input_ids", "attention_mask")
    assert raw["input_ids"].shape == (2, 16)  # the longest has 10, in steps of 8
    assert "where is" in " ".join(work.text_of(work.train, at) or "" for at in range(9))
    result = CliRunner().invoke(app, ["init", "hf:net", "--data", "t.csv"], catch_exceptions=False)
    assert result.exit_code == 0
    assert load_workload("my_workload.py").fingerprint() == work.fingerprint()
    assert 15 <= len(Path("my_workload.py").read_text().splitlines()) <= 40


def test_labels_are_in_the_order_of_the_model(place: Path) -> None:
    names = {0: "top_up", 1: "rate", 2: "card"}
    model(place / "net", id2label=names, label2id={name: at for at, name in names.items()})
    assert load_classes("hf:net") == ("top_up", "rate", "card")
    work = load_workload(Source("hf:net", "t.csv"))
    assert work.classes == ("top_up", "rate", "card")
    assert CliRunner().invoke(app, ["init", "hf:net", "--data", "t.csv"]).exit_code == 0
    assert load_workload("my_workload.py").fingerprint() == work.fingerprint()


def test_another_number_of_classes_is_a_new_head(place: Path) -> None:
    model(place / "net", num_labels=7)
    assert load_workload(Source("hf:net", "t.csv")).task.class_count == 3


def test_what_is_no_text_classifier_is_told(place: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    model(place / "net")
    config = json.loads((place / "net" / "config.json").read_text())
    (place / "photos").mkdir()
    with pytest.raises(WorkloadError, match="another kind than the model takes"):
        load_workload(Source("hf:net", "photos"))
    (place / "net" / "vocab.txt").unlink()
    with pytest.raises(DataError, match="no tokeniser"):
        load_workload(Source("hf:net", "t.csv"))
    tokenizer(place / "net")
    (place / "net" / "vocab.txt").write_text("\n".join([*WORDS, "one", "more"]))
    with pytest.raises(WorkloadError, match="more tokens than this one knows"):
        load_workload(Source("hf:net", "t.csv"))
    tokenizer(place / "net")
    weights = load_file(place / "net" / "model.safetensors")
    gone = "bert.encoder.layer.0.output.dense.weight"
    save_file({k: v for k, v in weights.items() if k != gone}, place / "net" / "model.safetensors")
    with pytest.raises(WeightsError, match="don't fit"):
        load_workload(Source("hf:net", "t.csv"))
    save_file({k: torch.zeros_like(v) for k, v in weights.items()}, place / "net" / "model.safetensors")
    (place / "net" / "config.json").write_text(
        json.dumps({**config, "auto_map": {"AutoConfig": "evil.Evil"}})
    )
    with pytest.raises(WorkloadError, match="never runs"):
        load_workload(Source("hf:net", "t.csv"))


def test_code_of_a_tokeniser_is_never_run(place: Path) -> None:
    path = tokenizer(place / "own")
    (path / "evil.py").write_text("raise SystemExit('run')\n")
    told = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    (path / "tokenizer_config.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match="never runs"):
        TextTransform(path).encode(["a"])


@pytest.mark.parametrize("content", [b"{", b"", b'{"model": 5}'])
def test_a_damaged_tokeniser_is_named(content: bytes, place: Path) -> None:
    path = tokenizer(place / "own")
    (path / "tokenizer.json").write_bytes(content)
    with pytest.raises(DataError, match="this tokeniser can't be read"):
        TextTransform(path).encode(["a"])


def test_a_function_names_its_tokeniser(place: Path) -> None:
    tokenizer(place / "own")
    (place / "net.py").write_text(
        "from torch import nn\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, n):\n"
        "        super().__init__()\n"
        "        self.rows, self.head = nn.Embedding(40, 8), nn.Linear(8, n)\n"
        "    def forward(self, input_ids, attention_mask):\n"
        "        on = attention_mask[:, :, None].float()\n"
        "        return self.head((self.rows(input_ids) * on).sum(1) / on.sum(1))\n\n"
        "def net(num_classes):\n"
        "    model = Net(num_classes)\n"
        "    model.tokenizer = 'own'\n"
        "    return model\n\n"
        "def bare(num_classes):\n    return Net(num_classes)\n"
    )
    work = load_workload(Source("net.py:net", "t.csv", size=12))
    work.check()
    assert np.array_equal(work.train.inputs["input_ids"].shape, (len(work.train), 12))
    with pytest.raises(WorkloadError, match="whose tokens"):
        load_workload(Source("net.py:bare", "t.csv"))
