"""What stands between a text and the model, as plain data: whose tokens, and how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import DataError, MissingExtraError
from edgekit.files import read_json, what_is

__all__ = ["TextTransform"]

_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_SETTINGS = "tokenizer_config.json"
_AT_ONCE = 1000
_LONGEST = 8192


@dataclass(frozen=True)
class TextTransform:
    """How texts become token ids of one length, and a mask of those that count.

    Args:
        tokenizer: a folder as transformers' ``save_pretrained`` writes it: ``tokenizer.json``, or
            ``vocab.txt`` and ``tokenizer_config.json``. It is read offline, and no code in it is run.
        length: tokens of each text, the tokeniser's own marks included. Longer ones are cut off, shorter ones
            filled up.

    Raises DataError: no such length.
    """

    tokenizer: str | Path
    length: int = 128

    def __post_init__(self) -> None:
        if not isinstance(self.length, int) or not 1 <= self.length <= _LONGEST:
            got, expected = repr(self.length), f"1 to {_LONGEST:,} tokens"
            raise DataError("no length of a text", where="TextTransform.length", got=got, expected=expected)

    def encode(self, texts: Sequence[str]) -> dict[str, npt.NDArray[np.int64]]:
        """Token ids and the mask of those that count: "input_ids" and "attention_mask", (N, length) each.

        Raises DataError: a folder without tokeniser, or one that has no token to fill up with.
        """
        known = loaded(str(self.tokenizer))
        found: dict[str, list[npt.NDArray[np.int64]]] = {"input_ids": [], "attention_mask": []}
        for start in range(0, len(texts), _AT_ONCE):
            part = list(texts[start : start + _AT_ONCE])
            told = self._asked(
                known,
                part,
                padding="max_length",
                truncation=True,
                max_length=self.length,
                return_attention_mask=True,
            )
            for name, parts in found.items():
                parts.append(np.array(told[name], np.int64).reshape(len(part), self.length))
        empty = np.zeros((0, self.length), np.int64)
        return {name: np.concatenate([empty, *parts]) for name, parts in found.items()}

    def lengths(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Tokens of each text, whatever ``length`` is. Raises DataError, see ``encode``."""
        known, found = loaded(str(self.tokenizer)), []
        for start in range(0, len(texts), _AT_ONCE):
            part = list(texts[start : start + _AT_ONCE])
            told = self._asked(known, part, return_attention_mask=False, verbose=False)
            found += [len(one) for one in told["input_ids"]]
        return np.array(found, np.int64)

    def _asked(self, known: Any, texts: list[str], **how: Any) -> Any:
        try:
            return known(texts, **how)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a library in Rust panics with what is no Exception
            raise DataError(
                "this tokeniser can't read texts",
                where=str(self.tokenizer),
                got=" ".join(str(error).split())[:300],
                expected="what transformers' save_pretrained writes",
            ) from error

    def decode(self, sample: Any) -> str:
        """A sample, {"input_ids", "attention_mask"}, as text to read: ``Workload(decode=…)``."""
        ids = [
            int(one)
            for one, on in zip(*(sample[k] for k in ("input_ids", "attention_mask")), strict=True)
            if on
        ]
        return str(loaded(str(self.tokenizer)).decode(ids, skip_special_tokens=True))

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return len(loaded(str(self.tokenizer)))

    def told(self) -> str:
        """In one line."""
        return f"{self.length} of {self.vocabulary:,} tokens ({self.tokenizer})"


def loaded(folder: str) -> Any:
    """The tokeniser of a folder, read once. Raises DataError, MissingExtraError."""
    path = Path(folder)
    where = path if path.is_dir() else path.parent
    files = [where / name for name in (*_FILES, _SETTINGS) if (where / name).is_file()]
    if not any(one.name != _SETTINGS for one in files):
        raise DataError(
            "no tokeniser",
            where=folder,
            got=what_is(path) if not path.is_dir() else "none of its files",
            expected=f"a folder with {', '.join(_FILES[:3])}",
            next="tokenizer.save_pretrained(FOLDER) writes them",
        )
    return _read(where, tuple((one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in files))


@lru_cache(maxsize=8)
def _read(where: Path, _files: tuple[tuple[str, int, int], ...]) -> Any:
    settings = where / _SETTINGS
    try:
        if settings.exists() and "auto_map" in read_json(settings):
            raise DataError(
                "this tokeniser is code that came with its model, which edgekit never runs",
                where=str(settings),
                got="auto_map",
            )
        transformers = _package()
        known = transformers.AutoTokenizer.from_pretrained(
            where, local_files_only=True, trust_remote_code=False
        )
    except (DataError, MissingExtraError):
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a library in Rust panics with what is no Exception
        raise DataError(
            "this tokeniser can't be read",
            where=str(where),
            got=" ".join(str(error).split())[:300],
            expected="what transformers' save_pretrained writes",
        ) from error
    if known.pad_token_id is None:
        raise DataError(
            "a tokeniser without a token to fill up with", where=str(where), expected="a pad_token"
        )
    return known


def _package() -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise MissingExtraError(
            "transformers is not installed",
            where="texts",
            next='pip install "transformers>=5,<6"',
        ) from None
    return transformers
