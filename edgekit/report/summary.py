"""The content of ``report.json``. Accuracies and shares are 0…1, times are nanoseconds, sizes are bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.errors import MissingExtraError
from edgekit.files import read_bytes
from edgekit.formats import FormatName, Precision

SCHEMA = 1
Number = float  # a field below has this name
REPORT_KEY = "report.key"  # the record of report.json


class _Part(BaseModel):
    # Keys that a later version added are passed over: a report must stay readable.
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Figures(_Part):
    """Of a model: the task's score on the whole validation set, and its size. ``macs``: for one sample."""

    accuracy: float = Field(allow_inf_nan=False)
    parameters: int = Field(ge=0)
    macs: int = Field(ge=0)


class StageRow(Figures):
    """A stage's result. ``seconds``: what it took, continued trainings included."""

    kind: str
    seconds: float
    changed: bool = True
    note: str = ""
    folder: str = ""  # relative to the run folder
    kept_float: tuple[str, ...] = ()  # modules that it was told to leave in float, or that a budget left
    doubts: tuple[str, ...] = ()  # about calibration data, and layers that no grid holds


class FloatLayer(_Part):
    """A layer of an int8 file that its runtime executes in float."""

    name: str
    kernel: str
    macs: int
    reason: str


class LostChannel(_Part):
    """A channel of a file's answers against the float model's, in dB, and the int8 graph's against it."""

    channel: int
    snr_db: float
    graph_snr_db: float


class LostChannels(_Part):
    """``count`` of ``channels`` that int8 lost, the ``worst`` of them; ``snr_db``: of all channels."""

    count: int
    channels: int
    snr_db: float
    worst: tuple[LostChannel, ...]


class InRuntime(_Part):
    """What a file is worth in another runtime than the one that it is judged by; ``snr_db``: of its answers
    against the torch model that it was exported from.
    """

    accuracy: float
    agreement: float
    snr_db: float


class Artifact(_Part):
    """An exported file, judged by its own answers in its own runtime.

    ``agreement``: share of validation samples with the same answer as the fake-quantised torch model (the
    last torch model, if the recipe has no qat stage). ``parity``: the same against the torch model that this
    very file was exported from. ``int8_coverage``: share of MACs in integer kernels, counted in what the
    runtime executes; None if that couldn't be found out.
    """

    file: str  # relative to the run folder
    format: FormatName
    precision: Precision
    sha256: str
    size_bytes: int = Field(ge=0)
    accuracy: float
    scores: dict[str, float] = {}  # of several outputs by name, of which ``accuracy`` is the lowest
    agreement: float
    int8_coverage: float | None
    parity: float
    parameters: int = Field(ge=0)
    macs: int = Field(ge=0)
    parent: str = ""  # the stage whose model it is: "prune", or "" for the trained model
    float_layers: tuple[FloatLayer, ...] = ()
    snr_db: float | None = None  # of its outputs, against the torch model that it was exported from
    steady_db: float | None = None  # of an int8 graph against itself with a few roundings moved, if asked
    amplified: bool = False  # its layers are right one by one, and the network makes their roundings grow
    lost_channels: LostChannels | None = None  # where int8 left some of them far behind the others
    float_time_share: float | None = None  # of the time in kernels, spent outside of integer ones
    float_kernels: tuple[str, ...] = ()  # those kernels, what takes most time first
    partitions: int | None = None  # pieces that the runtime hands to its fast kernels (LiteRT: to XNNPACK)
    outside: dict[str, int] = {}  # ops by kind that it executes between them, in slower ones
    runtimes: dict[str, InRuntime] = {}  # others that read it, by name


class LadderStep(_Part):
    """A rung of the parity ladder against the one that it was made from (``against``).

    ``agreement``: share of samples with the same answer. ``snr_db``: signal-to-noise ratio of the outputs,
    200 for equal ones; the same of the worst channel and of the worst sample. ``max_steps``: the largest
    error, in steps of the output's int8 grid. ``steady_db``: of the int8 graph against itself when one in a
    thousand of its roundings is moved by one step, where that was looked at. ``layers``: how many of a file
    were compared one by one, on its own integers. Of those that compute exactly, ``layers_peak``: the largest
    difference in steps of the grid; ``layers_far``: the largest share of a layer's values that are more than
    a step off. ``outputs``: of several by name, ``snr_db`` and ``worst_channel_db``; the fields here are then
    the worst of them.
    """

    rung: str
    against: str
    agreement: float | None  # None on another device, where only numbers are compared
    snr_db: float
    max_steps: float | None = None
    worst_channel_db: float | None = None
    worst_sample_db: float | None = None
    steady_db: float | None = None
    layers: int | None = None
    layers_peak: float | None = None
    layers_far: float | None = None
    outputs: dict[str, dict[str, float]] = {}


class Measured(_Part):
    """One file in its runtime with a number of threads. ``samples``: timed runs of one inference each.

    The intervals are those of rounds, at 99 % (bench/stats.py). ``faster``: p50 of the reference with as many
    threads on the same device, over this p50. ``unstable`` says why the timings shouldn't be relied on.
    """

    artifact: str
    device: str
    runtime: str
    threads: int
    backend: str = ""  # execution provider or delegate; "" is the runtime's default on the CPU
    p50_ns: int = Field(ge=0)
    p90_ns: int
    samples: int
    p50_low_ns: int | None = None
    p50_high_ns: int | None = None
    faster: float | None = None
    faster_low: float | None = None
    faster_high: float | None = None
    load_ns: int | None = None
    first_ns: int | None = None
    peak_rss_bytes: int | None = None
    runtime_version: str = ""
    unstable: str | None = None
    accuracy: float | None = None  # on this device, on the samples that were asked there


class Counted(_Part):
    """One file on an emulated device: instructions of one inference, which are no time.

    ``fewer``: instructions of the reference over these. ``spread``: (most − fewest) / median of the runs.
    ``checked`` samples were asked there; ``snr_db`` compares with this machine's answers, 200 for equal.
    """

    artifact: str
    device: str
    runtime: str
    threads: int
    instructions: int
    spread: float
    samples: int
    fewer: float | None = None
    accuracy: float | None = None
    checked: int = 0
    snr_db: float | None = None
    peak_rss_bytes: int | None = None


class Failed(_Part):
    """A file that could not be measured, and why."""

    artifact: str
    device: str
    runtime: str
    threads: int
    error: str


class Recommended(_Part):
    """Which file to take. ``reason`` is a sentence with the figures that decided."""

    artifact: str
    runtime: str
    reason: str
    device: str = ""
    threads: int | None = None
    within_limit: bool = True  # whether it keeps the accuracy that the recipe asks for


class Warned(_Part):
    """Something that came out worse than wanted. ``about``: a file or a stage."""

    kind: Literal[
        "accuracy",
        "slower",
        "larger",
        "coverage",
        "agreement",
        "calibration",
        "failed",
        "unstable",
        "guard",
        "source",
    ]
    about: str
    message: str


class Sensitive(_Part):
    """A module in int8 alone, on held-out training data: signal-to-noise ratio of the answers, its share of
    all noise, by how much the task's loss grew, and the MACs that it would have in float.
    """

    name: str
    snr_db: float
    share: float
    loss: float | None
    macs: int


class BudgetRound(_Part):
    """Layers that stayed float, and what became of the int8 files.

    ``limit``: points that the choice could lose on held-out training data; ``held_out_drop``: that it lost
    there, None where nothing was chosen; ``damage_left``: noise as a share of the answers' spread;
    ``judged``: choices that were asked on held-out data. ``files``: by name, on the validation set, points
    lost (``drop``), at most with the confidence asked for (``upper``), answers ``broken`` and ``repaired``.
    """

    number: int
    limit: Number | None
    float: tuple[str, ...]
    float_macs: int = 0
    held_out_drop: Number | None = None
    damage_left: Number | None = None
    judged: int = 0
    files: dict[str, dict[str, Any]]
    kept: bool

    @property
    def worst(self) -> Number:
        """Points, of the file that lost most."""
        return max((one["drop"] for one in self.files.values()), default=0.0)


class Budget(_Part):
    """A contract about accuracy: what was asked, and the rounds that it took. ``held_out``: samples of
    training data that it was decided on; ``modules``: those that lose most in int8 first.
    """

    max_drop: float
    confidence: float | None = None
    kept: bool
    rounds: tuple[BudgetRound, ...]
    held_out: int = 0
    macs: int = 0
    modules: tuple[Sensitive, ...] = ()


class Report(_Part):
    """The whole report. ``reference``: the original model's fp32 ONNX, against which gains are measured."""

    schema_version: int = Field(SCHEMA, alias="schema")
    workload: str
    recipe: str
    baseline: Figures
    stages: tuple[StageRow, ...]
    artifacts: tuple[Artifact, ...]
    measurements: tuple[Measured, ...]
    recommended: Recommended
    warnings: tuple[Warned, ...] = ()
    counts: tuple[Counted, ...] = ()  # of emulated devices, never ranked with the measurements
    failures: tuple[Failed, ...] = ()
    ladder: tuple[LadderStep, ...] = ()
    reference: str = ""
    task: dict[str, Any] = Field(default_factory=dict)
    max_accuracy_drop: float = 1.0  # points, as the recipe allows
    folder: str = ""
    seconds: float = 0.0  # of work, all attempts of a run that was continued together
    devices: tuple[dict[str, Any], ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    budget: Budget | None = None  # where accuracy was a contract

    def to_json(self) -> dict[str, Any]:
        """JSON values, as in report.json."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Report:
        """Inverse of ``to_json``. Raises ValueError (pydantic's own) if keys are missing or wrong."""
        return cls.model_validate(values)

    def to_rows(self) -> list[dict[str, Any]]:
        """One for each file in each of its timings, see ``report/tabular.py``."""
        from edgekit.report.tabular import rows

        return rows(self)

    def to_pandas(self) -> Any:
        """The same as a pandas.DataFrame. Raises MissingExtraError: pandas isn't installed."""
        try:
            import pandas
        except ModuleNotFoundError:
            raise MissingExtraError(
                "pandas is not installed",
                where="Report.to_pandas",
                next="pip install pandas; report.to_rows() has the same as plain values",
            ) from None
        return pandas.DataFrame(self.to_rows())

    @classmethod
    def load(cls, run: str | Path) -> Report:
        """The report of a run folder, or of a report.json. Raises OSError if there is none, ValueError if it
        is damaged.
        """
        path = Path(run)
        return cls.model_validate_json(read_bytes(path if path.suffix == ".json" else path / "report.json"))
