"""The command line: pictures or .npy files in, answers out."""

import argparse
import json
import sys
from typing import Any, List, Optional

import numpy as np

from . import images
from .model import Model
from .selftest import selftest

__all__ = ["main"]


def main(arguments: Optional[List[str]] = None) -> int:
    """Exit code: 0, 1 if the self-test failed, 2 for input that can't be read."""
    package = (__package__ or "model").split(".")[0]
    parser = argparse.ArgumentParser(prog=f"python -m {package}", description=__doc__)
    parser.add_argument("files", nargs="*", help="pictures, or .npy with one raw sample or several")
    parser.add_argument("--top", type=int, default=3, help="how many classes to tell (3)")
    parser.add_argument("--threads", type=int, default=1, help="for the runtime (1)")
    parser.add_argument("--json", action="store_true", help="print JSON, one line for each sample")
    parser.add_argument("--outputs", metavar="FILE", help="write the file's own outputs to a .npy")
    parser.add_argument("--self-test", action="store_true", help="compare with the answers kept in here")
    options = parser.parse_args(arguments)
    if not options.files and not options.self_test:
        parser.error("no files; --self-test needs none")
    try:
        model = Model.load(options.threads)
        if options.self_test:
            return _tested(model, options.json)
        _predict(model, options)
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
        print(
            f"self-test of {found['samples']} samples {word} "
            f"(largest difference {found['output_difference']:g}, tolerance {found['tolerance']:g})"
        )
    return 0 if found["passed"] else 1


def _predict(model: Model, options: Any) -> None:
    from .postprocessing import predictions
    from .preprocessing import prepare

    outputs = []
    for path in options.files:
        samples = _samples(path, model)
        answered = model.run(prepare(samples, model.spec))
        outputs.append(answered)
        for index, prediction in enumerate(predictions(answered, model.spec)):
            name = path if len(samples) == 1 else f"{path}[{index}]"
            told = prediction.to_json(options.top)
            print(json.dumps({"file": name, **told}) if options.json else f"{name}: {_text(told)}")
    if options.outputs:
        np.save(options.outputs, np.concatenate(outputs))


def _samples(path: str, model: Model) -> Any:
    raw = model.spec["raw"]
    if not path.endswith(".npy"):
        return images.read(path, raw)[None]
    values = np.load(path, allow_pickle=False)
    return values[None] if values.ndim == len(raw["shape"]) else values


def _text(told: Any) -> str:
    if "top" in told:
        return ", ".join(f"{one['label']} {100 * one['probability']:.1f} %" for one in told["top"])
    return json.dumps(told)


if __name__ == "__main__":
    sys.exit(main())
