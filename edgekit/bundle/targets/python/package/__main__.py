"""The command line: samples in, answers out."""

import argparse
import json
import sys
from typing import Any, Dict, List, Optional

import numpy as np

from . import images
from .file import File, read_spec
from .postprocessing import predictions
from .selftest import selftest

__all__ = ["main"]

# What files hold: of a model with one input and one output, and of one with several of either.
_FILES = {
    False: "pictures, or .npy with one raw sample or several",
    True: ".npz: one raw sample or several of each input, under its name",
}
_SOUNDS = "WAV files, or .npy with one raw sample or several: a sound's features"


def main(arguments: Optional[List[str]] = None) -> int:
    """Exit code: 0, 1 if the self-test failed, 2 for input that can't be read."""
    package, spec = (__package__ or "model").split(".")[0], read_spec()
    several = "inputs" in spec
    parser = argparse.ArgumentParser(prog=f"python -m {package}", description=__doc__)
    parser.add_argument("files", nargs="*", help=_SOUNDS if "sound" in spec else _FILES[several])
    parser.add_argument("--top", type=int, default=3, help="how many classes to tell (3)")
    parser.add_argument("--threads", type=int, default=1, help="for the runtime (1)")
    parser.add_argument("--json", action="store_true", help="print JSON, one line for each sample")
    written = f"write the file's own outputs to a {'.npz' if several else '.npy'}"
    parser.add_argument("--outputs", metavar="FILE", help=written)
    if several:
        steps = "each file holds the steps of one stream"
        parser.add_argument("--stream", action="store_true", help=steps)
    parser.add_argument("--self-test", action="store_true", help="compare with the answers kept in here")
    options = parser.parse_args(arguments)
    streamed = several and options.stream
    if not options.files and not options.self_test:
        parser.error("no files; --self-test needs none")
    if streamed and options.outputs:
        parser.error("--outputs writes answers to samples, not to a stream")
    try:
        file = File.load(options.threads)
        if options.self_test:
            return _tested(file, options.json)
        (_streamed if streamed else _predict)(file, options)
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _tested(file: File, as_json: bool) -> int:
    found = selftest(file)
    if as_json:
        found["imported"] = sorted({name.split(".")[0] for name in sys.modules})
        print(json.dumps(found))
    else:
        word = "passed" if found["passed"] else "FAILED: " + "; ".join(found["faults"])
        offs = [
            f"{name}largest difference {one['output_difference']:g}, tolerance {one['tolerance']:g}"
            for name, one in (
                [(f"{name}: ", one) for name, one in found["outputs"].items()]
                if file.several
                else [("", found)]
            )
        ]
        print(f"self-test of {found['samples']} samples {word} ({'; '.join(offs)})")
    return 0 if found["passed"] else 1


def _predict(file: File, options: Any) -> None:
    answers = []
    for path in options.files:
        samples = _samples(path, file)
        answered = file.run(file.prepared(samples))
        answers.append(answered)
        if "detection" in file.spec:
            _tell_boxes(path, answered, file, options.json)
            continue
        if "keypoints" in file.spec:
            _tell_points(path, answered, file, options.json)
            continue
        read = {name: predictions(answered[name], one) for name, one in file.outputs.items()}
        count = len(next(iter(samples.values())))
        for index in range(count):
            told = {name: rows[index].to_json(options.top) for name, rows in read.items()}
            _tell(path if count == 1 else f"{path}[{index}]", told, file, options.json)
    if options.outputs:
        rows: Dict[str, Any] = {name: np.concatenate([one[name] for one in answers]) for name in file.outputs}
        if file.several:
            np.savez(options.outputs, **rows)
        else:
            np.save(options.outputs, *rows.values())


def _tell_boxes(path: str, answers: Dict[str, Any], file: File, as_json: bool) -> None:
    """Of a detector: boxes in pixels of the model's input, or of the picture where it is one."""
    from .detecting import Detector, decoded

    rows = decoded(answers, file)
    for index, one in enumerate(rows):
        name = path if len(rows) == 1 else f"{path}[{index}]"
        labels = file.spec["detection"]["classes"]
        boxes = [[*row[:4].tolist(), labels[int(row[4])], float(row[5])] for row in one]
        if not path.endswith((".npy", ".npz")):
            boxes = [list(box) for box in Detector(file).detect(path)]
        if as_json:
            print(json.dumps({"file": name, "boxes": boxes}), flush=True)
        for left, top, right, bottom, label, score in () if as_json else boxes:
            print(f"{name}: {label} {score:.2f} at {left:.0f}, {top:.0f} to {right:.0f}, {bottom:.0f}")


def _tell_points(path: str, answers: Dict[str, Any], file: File, as_json: bool) -> None:
    """In pixels of the model's input, or of the picture where it is one."""
    from .pointing import Finder, points_of

    rows = points_of(answers, file)
    for index, one in enumerate(rows):
        name = path if len(rows) == 1 else f"{path}[{index}]"
        points = [list(pair) for pair in zip(file.spec["keypoints"]["names"], *one.T.tolist())]
        if not path.endswith((".npy", ".npz")):
            points = [list(point) for point in Finder(file).find(path)]
        if as_json:
            print(json.dumps({"file": name, "points": points}), flush=True)
        for label, x, y, score in () if as_json else points:
            print(f"{name}: {label} {score:.2f} at {x:.0f}, {y:.0f}")


def _streamed(file: File, options: Any) -> None:
    from .named import Stream

    stream = Stream(file)
    for path in options.files:
        stream.reset()
        samples = _samples(path, file)
        counts = {name: len(one) for name, one in samples.items()}
        if len(set(counts.values())) != 1:
            raise ValueError(f"{path}: as many steps of each input were expected, got {counts}")
        for index in range(next(iter(counts.values()))):
            answers = stream.step({name: one[index] for name, one in samples.items()})
            told = {output: one.to_json(options.top) for output, one in answers.items()}
            _tell(f"{path}[{index}]", told, file, options.json)


def _samples(path: str, file: File) -> Dict[str, Any]:
    """Raw samples (N, ...) of each input; where there is but one, a picture or a .npy will do."""
    if path.endswith(".npz"):
        with np.load(path, allow_pickle=False) as found:
            given = {name: found[name] for name in found.files}
    elif len(file.inputs) == 1:
        ((name, one),) = file.inputs.items()
        given = {name: _sample(path, one, file)}
    else:
        raise ValueError(f"{path}: a .npz with {', '.join(file.inputs)} was expected")
    ranks = {name: len(one["raw"]["shape"]) for name, one in file.inputs.items()}
    return {name: one[None] if one.ndim == ranks.get(name) else one for name, one in given.items()}


def _sample(path: str, one: Dict[str, Any], file: File) -> Any:
    if path.endswith(".npy"):
        return np.load(path, allow_pickle=False)
    if "sound" in file.spec:
        from . import sounds

        return sounds.read(path, file.spec)
    return images.read(path, one["raw"])


def _tell(name: str, told: Dict[str, Any], file: File, as_json: bool) -> None:
    """Print the answers to a sample; those of one output alone without its name."""
    if as_json:
        only = told if file.several else next(iter(told.values()))
        print(json.dumps({"file": name, **only}), flush=True)
        return
    for output, one in told.items():
        print(f"{name}: {output}: {_text(one)}" if file.several else f"{name}: {_text(one)}", flush=True)


def _text(told: Any) -> str:
    if "top" in told:
        return ", ".join(f"{one['label']} {100 * one['probability']:.1f} %" for one in told["top"])
    return json.dumps(told)


if __name__ == "__main__":
    sys.exit(main())
