"""Data of others go the whole way with one command: intents, spoken digits, blood cells.

Networks are small and their weights random: that their files say what they say is what is looked at.
"""

from __future__ import annotations

import importlib.util
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from edgekit.cli.app import app
from tests.sources.test_page import functions

pytestmark = [pytest.mark.data, pytest.mark.slow]

MORE = ["--recipe", "quick", "--set", "benchmark.min_seconds=0.05", "--set", "diagnose.samples=8"]


@pytest.fixture
def data(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the data sets are; the current folder has functions that build networks."""
    data_folder = data_folder.resolve()  # it may be named from the folder that is left here
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name, code in functions().items():
        Path(f"{name}.py").write_text(code)
    return data_folder


def compress(*arguments: str) -> dict[str, Any]:
    """The report. Every file agrees with the model that it was made of."""
    result = CliRunner().invoke(app, ["compress", *arguments, *MORE, "--json", "--quiet"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    names = {Path(one["file"]).name for one in report["artifacts"]}
    assert any(name.endswith("int8.onnx") for name in names)
    assert any(name.endswith("int8.tflite") for name in names)
    for one in report["artifacts"]:
        assert abs(one["accuracy"] - report["baseline"]["accuracy"]) < 0.05
    return report


def test_intents_by_a_folder_of_a_small_bert(data: Path) -> None:
    transformers = pytest.importorskip("transformers")
    Path("queries").mkdir()
    for split in ("train", "test"):
        Path(f"queries/{split}.csv").symlink_to(data / "text" / f"banking77_{split}.csv")
    words = set((data / "text" / "banking77_train.csv").read_text().lower().split())
    Path("bert").mkdir()
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    Path("bert/vocab.txt").write_text("\n".join([*marks, *sorted(word for word in words if word.isalpha())]))
    count = len(Path("bert/vocab.txt").read_text().splitlines())
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=count, num_labels=77, max_position_embeddings=64, **size)
    transformers.BertForSequenceClassification(config).save_pretrained("bert")
    compress("hf:bert", "--data", "queries")
    if importlib.util.find_spec("pyarrow") is None:
        return
    from pyarrow import csv, parquet

    Path("published/data").mkdir(parents=True)
    for split in ("train", "test"):
        rows = csv.read_csv(str(data / "text" / f"banking77_{split}.csv"))
        parquet.write_table(rows, f"published/data/{split}-00000-of-00001.parquet")
    compress("hf:bert", "--data", "published")


def test_spoken_digits_from_wav_files(data: Path) -> None:
    for split in ("train", "test"):
        arrays = dict(np.load(data / f"fsdd_{split}.npz", allow_pickle=False))
        clips = np.split(arrays["audio"], arrays["offsets"][1:-1])
        for at, (clip, label) in enumerate(zip(clips, arrays["labels"], strict=True)):
            folder = Path("digits", split, str(arrays["classes"][label]))
            folder.mkdir(parents=True, exist_ok=True)
            with wave.open(str(folder / f"{at}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(int(arrays["sample_rate"]))
                file.writeframes(clip.astype("<i2").tobytes())
    compress("spotter.py:spotter", "--data", "digits")


def test_blood_cells_from_their_coco_file(data: Path) -> None:
    report = compress("detector.py:detector", "--data", str(data / "bccd"))
    assert report["task"]["metric"] == "mAP@.5:.95"
