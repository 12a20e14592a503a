"""Parquet tables, as data sets of Hugging Face are published; in a process of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit import guarded
from edgekit.errors import DataError, MeasurementError, MissingExtraError
from edgekit.files import parse_json
from edgekit.units import human_bytes

__all__ = ["MOST_BYTES", "SUFFIX", "rows_of"]

SUFFIX = ".parquet"
MOST_BYTES = 1 << 30  # of one table's columns, however small its file is
_BATCH = 256  # rows that are decoded at once
_MOST_ROWS = 5_000_000
_SECONDS = 600.0


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Its rows, by names of columns in small letters; a column that is a class has the class's name.

    Columns of anything but text, numbers, truth values and pandas' categories (pictures, sounds, lists)
    are left out. A class that is -1 is none: as unlabelled splits are published.

    Raises DataError: damaged, or too long; MissingExtraError: pyarrow isn't installed.
    """
    about: dict[str, Any] = {"where": str(path), "timeout_seconds": _SECONDS}
    try:
        columns: dict[str, list[Any]] = guarded.call(
            read, str(path), what="this table can't be read", **about
        )
    except MeasurementError as error:
        raise DataError(error.what, where=error.where, got=error.got) from None
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def read(path: str) -> dict[str, list[Any]]:
    """The columns. Raises DataError, MissingExtraError."""
    try:
        from pyarrow import parquet, types
    except ModuleNotFoundError:
        raise MissingExtraError(
            "pyarrow is not installed", where=path, got="a Parquet file", next='pip install "pyarrow>=17"'
        ) from None
    try:
        file = parquet.ParquetFile(path)
        if file.metadata.num_rows > _MOST_ROWS:
            raise DataError(
                "too many rows", where=path, got=f"{file.metadata.num_rows:,}", expected=f"{_MOST_ROWS:,}"
            )
        schema = file.schema_arrow
        kinds = (
            types.is_string,
            types.is_large_string,
            types.is_integer,
            types.is_floating,
            types.is_boolean,
        )
        plain = []
        for one in schema:
            held = one.type.value_type if types.is_dictionary(one.type) else one.type
            plain += [one.name] if any(is_one(held) for is_one in kinds) else []
        columns: dict[str, list[Any]] = {name: [] for name in plain}
        size = 0
        for batch in file.iter_batches(_BATCH, columns=plain):
            for name, values in zip(batch.schema.names, batch.columns, strict=True):
                decoded = values.dictionary_decode() if types.is_dictionary(values.type) else values
                size += decoded.nbytes
                columns[name] += decoded.to_pylist()
            if size > MOST_BYTES:
                raise DataError(
                    "too much in one table",
                    where=path,
                    got=f"more than {human_bytes(MOST_BYTES)} of text and numbers",
                    expected=f"at most {human_bytes(MOST_BYTES)}",
                    next="several tables: train-00000-of-00002.parquet and so on",
                )
    except DataError:
        raise
    except Exception as error:  # of Arrow's own kinds
        text = " ".join(str(error).split())[:300]
        raise DataError("this is no Parquet file, or it is damaged", where=path, got=text) from error
    for name, classes in _classes((schema.metadata or {}).get(b"huggingface", b"{}")).items():
        if name in columns:
            columns[name] = [
                (classes[one] if 0 <= one < len(classes) else None if one == -1 else one)
                if isinstance(one, int)
                else one
                for one in columns[name]
            ]
    return {name.strip().lower(): values for name, values in columns.items()}


def _classes(about: bytes) -> dict[str, list[str]]:
    """Names of classes by column, as the library ``datasets`` writes them into the schema."""
    try:
        features = parse_json(about)["info"]["features"]
        return {
            name: [str(one) for one in said["names"]]
            for name, said in features.items()
            if isinstance(said, dict)
            and said.get("_type") == "ClassLabel"
            and isinstance(said["names"], list)
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
