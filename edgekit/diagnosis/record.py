"""All that was found, as kept in ``diagnosis.json``: enough to draw a report without data or models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from edgekit.diagnosis.judged import Judged
from edgekit.tasks.curves import Curves

__all__ = ["Attacked", "Corrupted", "Diagnosis", "LayerRow", "Marked", "Seen", "corruption_name"]

SCHEMA = 1


@dataclass(frozen=True)
class Corrupted:
    """Scores of original and file on the same corrupted samples.

    ``input``: which of several was corrupted. ``outputs``: before and after of each of several.
    """

    corruption: str
    severity: int  # 1 … 5
    before: float
    after: float
    input: str = ""
    outputs: dict[str, tuple[float, float]] = field(default_factory=dict)


def corruption_name(one: Corrupted) -> str:
    """With its input's name, where there are several."""
    return f"{one.corruption} of {one.input}" if one.input else one.corruption


@dataclass(frozen=True)
class Attacked:
    """Scores on samples that were changed, each value by ``epsilon``, so that the trained model errs.

    ``epsilon``: in shares of the range of raw values. ``input``, ``outputs``: see ``Corrupted``.
    """

    epsilon: float
    before: float
    after: float
    input: str = ""
    outputs: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """A sample to look at: a picture (PNG, as a data URI), a wave (min and max along the time), or text."""

    row: int
    # Nothing else: a page that shows it fetches nothing.
    image: Annotated[str, Field(pattern=r"^(data:image/png;base64,[A-Za-z0-9+/=]*)?$")] = ""
    wave: tuple[tuple[float, float], ...] = ()
    text: str = ""


_PNG = r"^(data:image/png;base64,[A-Za-z0-9+/=]*)?$"


@dataclass(frozen=True)
class Marked:
    """A picture with what was found in it ``before`` and ``after`` (PNG, as data URIs), and how many objects
    were missed and how many answers were wrong, before and after. ``shares``: instead of these, of answers at
    each pixel the share that is wrong.
    """

    row: int
    before: Annotated[str, Field(pattern=_PNG)]
    after: Annotated[str, Field(pattern=_PNG)]
    missed: tuple[int, int]
    wrong: tuple[int, int]
    shares: tuple[float, float] | None = None


@dataclass(frozen=True)
class LayerRow:
    """A multiplying layer of the int8 graph; without one, of the model that ``probed`` was made from.

    ``macs``: for one sample. ``bits``: of weights and activations. ``snr_db``: of what it makes in int8,
    against the same without rounding; None where nothing is rounded right behind it.
    """

    name: str
    kind: str
    macs: int
    parameters: int
    channels_in: int | None = None
    channels_out: int | None = None
    bits: int = 32
    snr_db: float | None = None


@dataclass(frozen=True)
class Diagnosis:
    """Files against the original (``reference``), each on the whole validation set.

    ``probed``: the file that was put to the probes on changed samples, ``probe_samples`` of them, where the
    original scores ``clean_before`` and the file ``clean_after`` as long as nothing is changed;
    ``clean_outputs``: of each of several. ``missing``: what couldn't be said, and why.
    """

    reference: str
    files: dict[str, Judged]
    class_names: tuple[str, ...] | None = None
    probed: str = ""
    probe_samples: int = 0
    clean_before: float | None = None
    clean_after: float | None = None
    clean_outputs: dict[str, tuple[float, float]] = field(default_factory=dict)
    corrupted: tuple[Corrupted, ...] = ()
    attacked: tuple[Attacked, ...] = ()
    seen: tuple[Seen, ...] = ()  # the samples whose answer flipped in ``probed``
    marked: tuple[Marked, ...] = ()  # pictures whose score fell most in ``probed``
    curves: tuple[Curves, Curves] | None = None  # of the original and of ``probed``
    layers: tuple[LayerRow, ...] = ()  # of the int8 graph, or what ``probed`` was made from
    missing: tuple[str, ...] = ()
    seconds: float = 0.0
    schema: int = field(default=SCHEMA)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        found: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return found

    @classmethod
    def from_json(cls, values: Any) -> Diagnosis:
        """Inverse of ``to_json``. Raises ValueError (pydantic's own) if keys are missing or wrong."""
        return _ADAPTER.validate_python(values)


_ADAPTER = TypeAdapter(Diagnosis)
