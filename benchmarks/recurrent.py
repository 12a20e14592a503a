"""Recurrent layers in int8: CRNNs on spoken digits, and Resemblyzer's trained speaker encoder.

    EDGEKIT_DATA=… EDGEKIT_PACKAGED=… python benchmarks/recurrent.py             # all three
    EDGEKIT_DATA=… python benchmarks/recurrent.py lstm gru --seconds 2           # some

The CRNNs (workloads/spoken_crnn.py, with an LSTM and with a GRU) are trained first, if the user's cache
doesn't hold them: some minutes each. Int8 graphs are calibrated on training clips, and not trained. Of each
network four files, fp32 and int8 for both runtimes, are timed in turns on one thread; ``times_as_fast`` is
the fp32 file's median over the int8 file's in the same runtime, ``times_smaller`` that of bytes, ``coverage``
the integer share of the MACs in what the runtime executes. Accuracies are those of the files on all 300 test
clips, of which the training saw none.

Resemblyzer (three LSTMs of 256 over 160 steps; Apache-2.0) turns 1.6 s of speech into a vector of length 1.
Its inputs here are the digits of one speaker behind each other, with features as its own preprocessing makes
them: 128 pieces of training clips to calibrate on, all pieces of test clips to be compared. ``cosine`` is
that between the vectors of a file and those of the float model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import work
from int8_vs_default import LOCAL
from provenance import surroundings
from torch import Tensor, nn

from edgekit.bench import stats
from edgekit.bench.measure import Candidate, Failure, evaluate, measure
from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate, calibration_batches

RUNTIMES = {"onnx": "onnxruntime", "litert": "litert"}
CELLS: dict[str, type[nn.LSTM | nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}
NAMES = (*CELLS, "resemblyzer")
OUT = Path(__file__).resolve().parent / "results" / "recurrent.json"
CALIBRATION, BATCH = 256, 64
RATE, WINDOW, HOP, BANDS, FRAMES = 16000, 400, 160, 40, 160  # Resemblyzer's
LOUDNESS = 10 ** (-30 / 20)

Array = npt.NDArray[Any]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=float, default=1.0, help="each file is timed for at least so long")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    about = surroundings(("torch", "onnxruntime", "ai-edge-litert", "litert-torch", "onnx", "numpy"))
    rows = []
    for name in options.names or NAMES:
        rows.append({"name": name, **(crnn(name, options) if name in CELLS else resemblyzer(options))})
        print(json.dumps(rows[-1]), flush=True)
        options.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    return 0


def crnn(name: str, options: Any) -> dict[str, Any]:
    """Accuracies of the four files, in percent, with their times and sizes."""
    network, own_weights = map(work.workload_module, ("spoken_crnn", "own_weights"))
    workload = own_weights.trained(network.untrained(CELLS[name]), network.TRAINING, work.Teller(name))
    batches = list(calibration_batches(workload.train.inputs, CALIBRATION, batch_size=BATCH, seed=0))
    held_out = workload.validation

    def score(answers: Array) -> float:
        outputs = torch.from_numpy(np.ascontiguousarray(answers)).float()
        return round(100 * workload.task.score(outputs, held_out.targets), 2)

    found = compared(workload.model, batches, held_out.inputs, options.seconds)
    answers = found.pop("answers")
    accuracy = {file: score(one) for file, one in answers.items()}
    with torch.no_grad():
        accuracy["torch"] = score(workload.model(held_out.inputs).numpy())
    points = {one: round(accuracy[f"{one} int8"] - accuracy[f"{one} fp32"], 2) for one in RUNTIMES}
    return {"samples": len(held_out), "accuracy": accuracy, "points": points, **found}


def resemblyzer(options: Any) -> dict[str, Any]:
    """Cosines between the int8 files' vectors and the float model's."""
    import foreign

    digits = work.workload_module("spoken_digits")
    model = foreign.make("packaged:resemblyzer").model
    folder = digits.data_folder()
    pieces = {split: speech(digits, folder / f"fsdd_{split}.npz") for split in ("train", "test")}
    order = np.random.default_rng(0).permutation(len(pieces["train"]))[:128]
    held_out = pieces["test"]
    found = compared(model, list(pieces["train"][order].split(32)), held_out, options.seconds)
    answers = found.pop("answers")
    with torch.no_grad():
        wanted = model(held_out)
    cosines = {}
    for file, one in answers.items():
        each = torch.cosine_similarity(wanted, torch.from_numpy(np.ascontiguousarray(one)).float())
        cosines[file] = {"least": round(float(each.min()), 5), "mean": round(float(each.mean()), 5)}
    return {"samples": len(held_out), "cosine": cosines, **found}


def compared(model: nn.Module, batches: Sequence[Tensor], inputs: Tensor, seconds: float) -> dict[str, Any]:
    """Answers of the four files to ``inputs``, their sizes, medians and coverage."""
    work.tell("calibrating")
    graph = capture(model, inputs[:1])
    graphs = {"fp32": graph, "int8": calibrate(graph, batches)}
    answers, sizes, coverage = {}, {}, {}
    with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as place:
        folder = Path(place)
        sample = folder / "inputs.npy"
        np.save(sample, inputs.numpy())
        candidates = []
        for format, runtime in RUNTIMES.items():
            for precision, source in graphs.items():
                file = f"{format} {precision}"
                work.tell(f"writing {file}")
                path = folder / f"{precision}{FORMATS[format].suffix}"
                how: Any = {"format": format, "precision": precision, "options": work.options_here()}
                export(source, inputs[:1], path, metadata={}, **how)
                answers[file] = evaluate(path, runtime, LOCAL, sample, batch=1)
                sizes[file] = path.stat().st_size
                coverage[file] = round(FORMATS[format].coverage(path).share, 3)
                candidates.append(Candidate(path, runtime, threads=1))
        work.tell("timing")
        timed = measure(candidates, LOCAL, sample=sample, min_seconds=seconds)
    medians: dict[str, float] = {}
    for file, result in zip(answers, timed, strict=True):
        if isinstance(result, Failure):
            raise result.error
        medians[file] = round(stats.percentile(result.raw_ns, 50) / 1e3, 1)
    return {
        "answers": answers,
        "p50_us": medians,
        "times_as_fast": ratios(medians),
        "bytes": sizes,
        "times_smaller": ratios(sizes),
        "coverage": {one: share for one, share in coverage.items() if "int8" in one},
    }


def ratios(values: dict[str, Any]) -> dict[str, float]:
    """Of fp32 to int8, by format."""
    return {one: round(values[f"{one} fp32"] / values[f"{one} int8"], 2) for one in RUNTIMES}


# --- speech, as Resemblyzer takes it -----------------------------------------------------------------------


def speech(digits: Any, path: Path) -> Tensor:
    """(N, 160, 40): pieces of 1.6 s of one speaker each, a tenth of a second of the last one lost at most."""
    clips, _, _ = digits.read(path)
    with np.load(path, allow_pickle=False) as archive:
        speaker = archive["speaker"]
    found = []
    for one in range(int(speaker.max()) + 1):
        own = np.concatenate([clip for clip, who in zip(clips, speaker, strict=True) if who == one])
        wave = twice_as_fine(own)
        wave = wave * LOUDNESS / (np.sqrt(np.mean(wave**2)) + 1e-9)
        mels = mel_powers(wave)
        count = len(mels) // FRAMES
        found.append(mels[: count * FRAMES].reshape(count, FRAMES, BANDS))
    return torch.from_numpy(np.concatenate(found).astype(np.float32))


def twice_as_fine(wave: Array) -> Array:
    """8 kHz to 16 kHz, by the spectrum."""
    spectrum = np.fft.rfft(wave)
    padded = np.zeros(len(wave) + 1, complex)
    padded[: len(spectrum)] = spectrum
    return 2 * np.fft.irfft(padded, 2 * len(wave))


def mel_powers(wave: Array) -> Array:
    """Powers in 40 mel bands of windows of 25 ms, every 10 ms: (frames, 40)."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP]
    bands = slaney_bands()
    parts = np.array_split(frames, max(1, len(frames) // 4096))
    return np.concatenate([np.abs(np.fft.rfft(part * window)) ** 2 @ bands.T for part in parts])


def slaney_bands() -> Array:
    """Triangles of area 1, (40, 201): evenly spaced in frequency below 1 kHz, in its logarithm above (Slaney
    1998, Auditory Toolbox).
    """
    linear, step = 200 / 3, np.log(6.4) / 27
    top = 15 + np.log(RATE / 2 / 1000) / step
    mels = np.linspace(0, top, BANDS + 2)
    hertz = np.where(mels < 15, mels * linear, 1000 * np.exp(step * (mels - 15)))
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    rising = (bins - hertz[:-2, None]) / (hertz[1:-1] - hertz[:-2])[:, None]
    falling = (hertz[2:, None] - bins) / (hertz[2:] - hertz[1:-1])[:, None]
    bands: Array = np.clip(np.minimum(rising, falling), 0, None)
    return bands * (2 / (hertz[2:] - hertz[:-2]))[:, None]


if __name__ == "__main__":
    raise SystemExit(work.guarded(main))
