"""The file of this package: what it takes and gives, by name, whether there is one of each or several."""

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, Mapping

from .preprocessing import prepare
from .runtime import Runtime

__all__ = ["DATA", "File", "read_spec"]

DATA = Path(__file__).resolve().parent / "data"


def read_spec() -> Dict[str, Any]:
    """All of ``data/model.json``."""
    found: Dict[str, Any] = json.loads((DATA / "model.json").read_text(encoding="utf-8"))
    return found


class File:
    """A loaded file; ``runtime`` has ``run``, as below.

    ``inputs``, ``outputs``: by name, what ``spec`` says of each. ``several``: whether any are more than one.
    """

    def __init__(self, spec: Dict[str, Any], runtime: Any) -> None:
        self.spec, self._runtime = spec, runtime
        self.several = "inputs" in spec
        inputs = spec["inputs"] if self.several else [{**spec, "name": spec["input"]["name"]}]
        outputs = spec["outputs"] if self.several else [{**spec, "name": spec["output"]["name"]}]
        self.inputs = {one["name"]: one for one in inputs}
        self.outputs = {one["name"]: one for one in outputs}

    @classmethod
    def load(cls, threads: int = 1) -> "File":
        """The one that lies in this package.

        Raises:
            RuntimeError: it isn't the file that was put there.
            ModuleNotFoundError: its runtime isn't installed; the message has the command.
        """
        spec = read_spec()
        path = DATA / spec["model"]["file"]
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != spec["model"]["sha256"]:
            raise RuntimeError(f"{path} was changed: sha256 {found}, expected {spec['model']['sha256']}")
        return cls(spec, Runtime(str(path), threads))

    def prepared(self, samples: Mapping[str, Any]) -> Dict[str, Any]:
        """Raw samples (N, ...) by name to inputs (N, ...) as the file takes them.

        Raises ValueError: samples of other names, shapes or types, or of different N.
        """
        if sorted(samples) != sorted(self.inputs):
            given, wanted = ", ".join(samples) or "nothing", ", ".join(self.inputs)
            raise ValueError(f"samples for {given}, expected {wanted}")
        made = {name: prepare(samples[name], one) for name, one in self.inputs.items()}
        counts = {name: len(one) for name, one in made.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"as many samples for each input were expected, got {counts}")
        return made

    def run(self, inputs: Mapping[str, Any]) -> Dict[str, Any]:
        """Prepared inputs (N, ...) to the file's own outputs (N, ...), by name and in its own types."""
        answers: Dict[str, Any] = self._runtime.run(inputs)
        return answers
