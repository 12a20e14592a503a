"""A tokeniser's folder, made here; texts of three kinds."""

from __future__ import annotations

import json
from pathlib import Path

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    *MARKS,
    "where",
    "is",
    "my",
    "card",
    "the",
    "rate",
    "fee",
    "##s",
    "?",
    "a",
    "of",
    "top",
    "up",
    "lost",
]
ROWS = [
    ("Where is my card?", "card"),
    ("my card is lost", "card"),
    ("the rate of the fee", "rate"),
    ("a rate?", "rate"),
    ("top up", "top_up"),
    ("where is the top up", "top_up"),
]


def tokenizer(path: Path, longest: int = 32) -> Path:
    """vocab.txt and tokenizer_config.json, as BERT has them."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    told = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": longest}
    (path / "tokenizer_config.json").write_text(json.dumps(told))
    return path


def table(path: Path, copies: int = 3) -> Path:
    """A CSV file, each text a few times over, with another end."""
    rows = [f'"{text} {"card " * at}",{label}' for at in range(copies) for text, label in ROWS]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path
