"""What half the MACs can gain in time at all: ResNet-8 and ResNet-20 in many widths, as whole files.

    EDGEKIT_DATA=… python benchmarks/pruning_attainable.py [--candidates 60]

Beside pruning_realised.py, where edgekit falls short of 0.8 of the saved MACs as saved time. Here nothing is
predicted and no accuracy minded: networks with random weights, the channels of the three streams and of the
blocks' insides in steps of 4, drawn at random among all with 2.0 to 2.1 times fewer MACs (for ResNet-20 all
blocks of a stage alike), are exported and timed in turns with the whole network. The best ones are timed
again at length, since the best of many short timings flatters. ``edgekit`` in a row is the best one's
(latency before / latency after) / (MACs before / MACs after): what a pruner that knew every whole file's time
would reach with these candidates; ``peer`` is the median candidate, a blind pick.
"""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import networks
import rows
import torch
import torch.nn.functional as F
import work
from provenance import surroundings
from torch import Tensor, nn

from edgekit.bench import stats
from edgekit.bench.measure import Candidate, Failure, measure
from edgekit.devices.device import Device
from edgekit.macs import count
from edgekit.pruning.goals.shipped import FORMAT, Precision, Runtime, Shipped

LOCAL = Device(name="local", transport="local")
RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "litert")
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
LEAST, MOST = 2.0, 2.1  # MACs before / after
STEP = 4
AT_ONCE = 7  # beside the whole network


class Widths(NamedTuple):
    """Channels of the streams and inside the blocks, stage by stage."""

    streams: tuple[int, int, int] = (16, 32, 64)
    insides: tuple[int, int, int] = (16, 32, 64)


WHOLE = Widths()


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut: a 1x1 convolution, or every second pixel and zero channels."""

    def __init__(self, inputs: int, inside: int, outputs: int, stride: int, *, convolved: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inside, 3, stride, 1)
        self.conv2 = nn.Conv2d(inside, outputs, 3, 1, 1)
        self.added = outputs - inputs
        self.stride = stride
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if convolved and stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(F.relu(self.conv1(x)))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.stride != 1:
            x = F.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added // 2, -(-self.added // 2))
            )
        return F.relu(out + x)


class Net(nn.Module):
    """(N, 3, 32, 32) to (N, 10). Batch norms are left out: they are folded in every file."""

    def __init__(self, widths: Widths, blocks: int, *, convolved: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths.streams[0], 3, 1, 1)
        made, inputs = [], widths.streams[0]
        for stage, (outputs, inside) in enumerate(zip(*widths, strict=True)):
            for index in range(blocks):
                stride = 2 if stage and not index else 1
                made.append(Block(inputs, inside, outputs, stride, convolved=convolved))
                inputs = outputs
        self.blocks = nn.Sequential(*made)
        self.linear = nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.linear(self.blocks(F.relu(self.stem(x))).mean((2, 3)))
        return scores


class Family(NamedTuple):
    """A network in all widths."""

    name: str
    blocks: int
    convolved: bool

    def build(self, widths: Widths) -> nn.Module:
        """With random weights that keep activations' variance (He et al. 2015)."""
        torch.manual_seed(0)
        return Net(widths, self.blocks, convolved=self.convolved).eval()

    def macs(self, widths: Widths) -> int:
        """As edgekit counts them."""
        return int(count(self.build(widths), torch.zeros(1, 3, 32, 32)).macs)

    def estimated(self, widths: Widths) -> int:
        """The same by arithmetic, for thousands of widths."""
        first = widths.streams[0]
        total, inputs = 27 * first * 1024, first
        for stage, (outputs, inside) in enumerate(zip(*widths, strict=True)):
            pixels = 1024 >> (2 * stage)
            for index in range(self.blocks):
                total += 9 * pixels * (inputs * inside + inside * outputs)
                if self.convolved and stage and not index:
                    total += pixels * inputs * outputs
                inputs = outputs
        return total + inputs * 10


FAMILIES = (Family("resnet8", 1, True), Family("resnet20", 3, False))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = work.parser(__doc__, "pruning_attainable")
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--again", type=int, default=5, help="how many of them are timed at length")
    parser.add_argument("--rounds", type=int, default=15, help="at length; an interval takes 8 or more")
    parser.add_argument("--seconds", type=float, default=1.5, help="at length, for each file")
    options = parser.parse_args(arguments)
    families: Sequence[Family] = FAMILIES
    if options.smoke:
        options.candidates, options.again, options.rounds, options.seconds = 2, 1, 8, 0.05
        families = FAMILIES[:1]
    made: list[dict[str, Any]] = []
    with work.workplace(options) as place:
        about = surroundings()
        for family in families:
            for runtime in RUNTIMES[: 1 if options.smoke else None]:
                for precision in PRECISIONS[: 1 if options.smoke else None]:
                    settings = {
                        "candidates": options.candidates,
                        "seed": options.seed,
                        "again": options.again,
                    }
                    settings |= {"rounds": options.rounds, "seconds": options.seconds}
                    record = place.part(
                        f"{family.name}-{runtime}-{precision}",
                        settings,
                        lambda folder, which=(family, runtime, precision): explored(*which, options, folder),
                        files=("pruning_attainable.py",),
                        code=("export", "bench"),
                    )
                    made.append(row_of(f"{family.name} {runtime} {precision}", record, about, options))
                    print(rows.table(made[-1:]), flush=True)
    print(rows.table(made))
    if not options.smoke:
        rows.write(options.out, made)
    return 0


def candidates(family: Family, number: int, seed: int) -> tuple[list[Widths], int]:
    """``number`` of the family's widths with the MACs wanted, at random, and how many there are in all."""
    steps = [range(STEP, whole + 1, STEP) for whole in WHOLE.streams + WHOLE.insides]
    before = family.estimated(WHOLE)
    fitting = [
        widths
        for chosen in itertools.product(*steps)
        if (widths := Widths(chosen[:3], chosen[3:])).streams == tuple(sorted(widths.streams))
        and LEAST <= before / family.estimated(widths) <= MOST
    ]
    return random.Random(seed).sample(fitting, min(number, len(fitting))), len(fitting)


def explored(
    family: Family, runtime: Runtime, precision: Precision, options: Any, folder: Path
) -> dict[str, Any]:
    """All candidates timed shortly, the best ones again at length."""
    chosen, available = candidates(family, options.candidates, options.seed)
    before = family.macs(WHOLE)
    saved = {widths: before / family.macs(widths) for widths in chosen}
    shipped = Shipped(LOCAL, runtime, precision)
    shortly: dict[Widths, float] = {}
    for batch in parts(chosen, AT_ONCE):
        timed = times(family, batch, shipped, seconds=min(0.4, options.seconds), rounds=options.rounds)
        for widths in batch:
            shortly[widths] = stats.ratio_of_rounds(timed[WHOLE], timed[widths]).value / saved[widths]
        work.tell(
            f"{family.name}, {runtime} {precision}: {len(shortly)} of {len(chosen)} timed, "
            f"best {max(shortly.values()):.2f}"
        )
    best = sorted(shortly, key=lambda one: -shortly[one])[: options.again]
    timed = times(family, best, shipped, seconds=options.seconds, rounds=options.rounds)
    at_length = []
    for widths in best:
        gained = stats.ratio_of_rounds(timed[WHOLE], timed[widths])
        interval = [gained.low / saved[widths], gained.high / saved[widths]]
        figures = {"realised": gained.value / saved[widths], "interval": interval, "level": gained.level}
        at_length.append({"widths": widths._asdict(), "saved": saved[widths], **figures})
    return {
        "available": available,
        "macs": before,
        "at_length": at_length,
        "shortly": [
            {"widths": widths._asdict(), "saved": saved[widths], "realised": value}
            for widths, value in sorted(shortly.items(), key=lambda pair: -pair[1])
        ],
    }


def parts(what: Sequence[Widths], size: int) -> Iterator[Sequence[Widths]]:
    """Slices of ``size``."""
    for start in range(0, len(what), size):
        yield what[start : start + size]


def times(
    family: Family, chosen: Sequence[Widths], shipped: Shipped, *, seconds: float, rounds: int
) -> dict[Widths, tuple[tuple[int, ...], ...]]:
    """By widths, the whole network among them, the runs in ns, round by round. Raises MeasurementError."""
    every = [WHOLE, *chosen]
    with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as folder:
        files = []
        for index, widths in enumerate(every):
            path = Path(folder) / f"{index}.{'tflite' if FORMAT[shipped.runtime] == 'litert' else 'onnx'}"
            example = networks.images(2, 32, torch.Generator().manual_seed(1))
            shipped.write(family.build(widths), example, path)
            files.append(Candidate(path, shipped.runtime, threads=1))
        found = measure(files, LOCAL, sample=None, min_seconds=seconds, rounds=rounds, min_runs=100)
    timed = {}
    for widths, one in zip(every, found, strict=True):
        if isinstance(one, Failure):
            raise one.error
        timed[widths] = one.result.rounds
    return timed


def row_of(title: str, record: dict[str, Any], about: dict[str, Any], options: Any) -> dict[str, Any]:
    """One family in one runtime and precision."""
    best = max(record["at_length"], key=lambda one: one["realised"])
    blind = record["shortly"][len(record["shortly"]) // 2]["realised"]
    return rows.row(
        title,
        "speed gained / MACs saved, best of the candidates, p50 of one sample on one thread",
        "share",
        edgekit=best["realised"],
        peer=blind,
        peer_name="the median candidate",
        ratio=best["realised"] / blind,
        samples=len(record["shortly"]),
        about=about,
        ratio_is="best / median",
        details=record,
        settings={
            "candidates": options.candidates,
            "step": STEP,
            "speedup": [LEAST, MOST],
            "rounds": options.rounds,
            "seed": options.seed,
        },
        command=rows.command(),
    )


if __name__ == "__main__":
    sys.exit(work.guarded(main))
