"""Texts of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from edgekit.errors import WorkloadError
from edgekit.progress import Event, reading
from edgekit.sources.kinds.base import Asked, Kind, Lines
from edgekit.sources.request import Source
from edgekit.texts.files import TextFiles
from edgekit.texts.listing import listed_texts
from edgekit.texts.transform import TextTransform

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["OfTexts"]

_MADE_UP = 32  # tokens, where there are no texts


class OfTexts(Kind[TextFiles, TextTransform]):
    """A table of texts and labels, or text files by class."""

    many: ClassVar[str] = "texts"
    wanted: ClassVar[str] = "texts: a CSV, TSV or JSONL file with columns text and label, or a folder of them"
    owner = TextFiles

    def glance(self, source: Source) -> None:
        assert source.data is not None
        listed_texts(source.data, source.validation, source.seed)

    def transform(self, asked: Asked, files: TextFiles | None) -> TextTransform:
        tokenizer, longest = asked.row.text(asked.name, asked.model)
        own = TextTransform(tokenizer, min(longest, _MADE_UP))
        rows = getattr(getattr(asked.model, "config", None), "vocab_size", None)
        if isinstance(rows, int) and own.vocabulary > rows:
            raise WorkloadError(
                "the tokeniser is of another model: it has more tokens than this one knows",
                where=asked.source.model,
                got=f"{own.vocabulary:,} tokens",
                expected=f"at most {rows:,}",
            )
        if asked.source.size is not None:
            if asked.source.size > longest:
                raise WorkloadError(
                    "more tokens than the model takes",
                    where="--size",
                    got=str(asked.source.size),
                    expected=f"at most {longest}",
                )
            return TextTransform(tokenizer, asked.source.size)
        if files is None:
            return own
        length, told = files.length_for(own, longest)
        reading(Event("note", "data", f"{length} tokens of at most {longest}: {told}"))
        return TextTransform(tokenizer, length)

    def noise(self, transform: TextTransform, count: int, generator: torch.Generator) -> Any:
        import torch

        from edgekit.tensors import NamedTensors

        shape = (count, transform.length)
        ids = torch.randint(0, transform.vocabulary, shape, generator=generator)
        return NamedTensors({"input_ids": ids, "attention_mask": torch.ones(shape, dtype=torch.int64)})

    def parts(self, model: nn.Module, transform: TextTransform, classes: int) -> dict[str, Any]:
        from edgekit.tasks import Classification

        return {"task": Classification(num_classes=classes), "decode": transform.decode}

    def lines(self, model: nn.Module, files: TextFiles, transform: TextTransform) -> Lines:
        return Lines(
            names=["Classification", "TextFiles", "TextTransform"],
            count=f"{len(files.listing):,} texts, {len(files.classes)} classes",
            transform=[
                f"transform = TextTransform({{path:{transform.tokenizer}}}, length={transform.length})"
            ],
            read="token ids and a mask",
            task="task=Classification(num_classes=len(data.classes))",
            more=["decode=transform.decode"],
        )
