"""The command line: samples in (.npz with an array for each input), answers out."""

import argparse
import json
import sys
from typing import Any, Dict, List, Optional

import numpy as np

from . import images
from .named import Model, prepared
from .named_selftest import selftest

__all__ = ["main"]


def main(arguments: Optional[List[str]] = None) -> int:
    """Exit code: 0, 1 if the self-test failed, 2 for input that can't be read."""
    package = (__package__ or "model").split(".")[0]
    parser = argparse.ArgumentParser(prog=f"python -m {package}", description=__doc__)
    parser.add_argument(
        "files", nargs="*", help=".npz: one raw sample or several of each input, under its name"
    )
    parser.add_argument("--top", type=int, default=3, help="how many classes to tell (3)")
    parser.add_argument("--threads", type=int, default=1, help="for the runtime (1)")
    parser.add_argument("--json", action="store_true", help="print JSON, one line for each sample")
    parser.add_argument("--outputs", metavar="FILE", help="write the file's own outputs to a .npz")
    parser.add_argument("--stream", action="store_true", help="each file holds the steps of one stream")
    parser.add_argument("--self-test", action="store_true", help="compare with the answers kept in here")
    options = parser.parse_args(arguments)
    if not options.files and not options.self_test:
        parser.error("no files; --self-test needs none")
    if options.stream and options.outputs:
        parser.error("--outputs writes answers to samples, not to a stream")
    try:
        model = Model.load(options.threads)
        if options.self_test:
            return _tested(model, options.json)
        (_streamed if options.stream else _predict)(model, options)
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _tested(model: Model, as_json: bool) -> int:
    found = selftest(model)
    if as_json:
        found["imported"] = sorted({name.split(".")[0] for name in sys.modules})
        print(json.dumps(found))
    else:
        word = "passed" if found["passed"] else "FAILED: " + "; ".join(found["faults"])
        offs = [
            f"{name}: largest difference {one['output_difference']:g}, tolerance {one['tolerance']:g}"
            for name, one in found["outputs"].items()
        ]
        print(f"self-test of {found['samples']} samples {word} ({'; '.join(offs)})")
    return 0 if found["passed"] else 1


def _predict(model: Model, options: Any) -> None:
    from .postprocessing import predictions

    answers = []
    for path in options.files:
        samples = _samples(path, model)
        answered = model.run(prepared(samples, model.spec))
        answers.append(answered)
        read = {one["name"]: predictions(answered[one["name"]], one) for one in model.spec["outputs"]}
        count = len(next(iter(samples.values())))
        for index in range(count):
            name = path if count == 1 else f"{path}[{index}]"
            told = {output: rows[index].to_json(options.top) for output, rows in read.items()}
            print(json.dumps({"file": name, **told}) if options.json else _text(name, told))
    if options.outputs:
        rows: Dict[str, Any] = {name: np.concatenate([one[name] for one in answers]) for name in answers[0]}
        np.savez(options.outputs, **rows)


def _streamed(model: Model, options: Any) -> None:
    stream = model.stream()
    for path in options.files:
        stream.reset()
        samples = _samples(path, model)
        counts = {name: len(one) for name, one in samples.items()}
        if len(set(counts.values())) != 1:
            raise ValueError(f"{path}: as many steps of each input were expected, got {counts}")
        for index in range(next(iter(counts.values()))):
            answers = stream.step({name: one[index] for name, one in samples.items()})
            told = {output: one.to_json(options.top) for output, one in answers.items()}
            name = f"{path}[{index}]"
            print(json.dumps({"file": name, **told}) if options.json else _text(name, told), flush=True)


def _samples(path: str, model: Model) -> Dict[str, Any]:
    """Raw samples (N, ...) of each input; where there is but one, a picture or a .npy will do."""
    inputs = model.spec["inputs"]
    if path.endswith(".npz"):
        with np.load(path, allow_pickle=False) as found:
            given = {name: found[name] for name in found.files}
    elif len(inputs) == 1:
        picture = not path.endswith(".npy")
        raw = inputs[0]["raw"]
        given = {inputs[0]["name"]: images.read(path, raw) if picture else np.load(path, allow_pickle=False)}
    else:
        raise ValueError(f"{path}: a .npz with {', '.join(model.inputs)} was expected")
    ranks = {one["name"]: len(one["raw"]["shape"]) for one in inputs}
    return {name: one[None] if one.ndim == ranks.get(name) else one for name, one in given.items()}


def _text(name: str, told: Dict[str, Any]) -> str:
    lines = []
    for output, one in told.items():
        if "top" in one:
            best = ", ".join(f"{each['label']} {100 * each['probability']:.1f} %" for each in one["top"])
        else:
            best = json.dumps(one)
        lines.append(f"{name}: {output}: {best}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
