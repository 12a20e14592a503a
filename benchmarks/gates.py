"""Do the gates let right int8 files of foreign networks pass, and what do they cost beside exporting them?

    python benchmarks/gates.py                        # the list of foreign.py
    python benchmarks/gates.py swin_tiny densenet121  # some of them

Each network is calibrated as it is (nothing pruned, nothing trained, 16 made-up inputs), exported to ONNX and
LiteRT, and each file is opened and compared layer by layer with the int8 graph, on inputs that didn't
calibrate. `reach.py` does the same at the end of the whole job; this takes minutes for each instead of a
quarter of an hour. One process for each network, one thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import foreign
import torch
from int8_vs_default import explained, quiet
from provenance import surroundings

from edgekit.devices import load_device
from edgekit.devices.asking import probe
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions, Target
from edgekit.formats.parity.file_parity import file_parity
from edgekit.formats.parity.layers import first_wrong, furthest
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate

CALIBRATION, BATCH, LOOKED_AT = 16, 4, 2
OUT = Path(__file__).resolve().parent / "results" / "gates.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the networks, and write the rows after each of them. Exit code 1 if a file was refused."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="names, or parts of them; all without any")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(looked_into(options.one)))
        return 0
    rows: dict[str, dict[str, Any]] = {}
    if options.out.exists():
        rows = {row["name"]: row for row in json.loads(options.out.read_text())["rows"]}
    about = surroundings()
    commit, isa = about.pop("commit"), about["machine"]["isa"]
    for name in foreign.names(options.names):
        rows[name] = {**_in_a_process(name), "commit": commit, "isa": isa}
        print(told(rows[name]), flush=True)
        text = json.dumps({**about, "rows": list(rows.values())}, indent=1, ensure_ascii=False)
        options.out.write_text(text + "\n")
    return int(any(one.get("wrong") for row in rows.values() for one in row.get("files", {}).values()))


def _in_a_process(name: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"name": name, "error": (done.stderr.strip().splitlines() or ["no message"])[-1][:300]}
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def looked_into(name: str) -> dict[str, Any]:
    """One network's row: for each file what `furthest` says of its layers, the first wrong one, seconds."""
    torch.set_num_threads(1)
    network = foreign.make(name)
    inputs, others = network.inputs(CALIBRATION, 1), network.inputs(LOOKED_AT, 2)
    target = Target.of(local := load_device("local"), probe(local))
    files: dict[str, Any] = {}
    with quiet(), tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as place:
        graph = calibrate(capture(network.model, inputs[:1]), list(inputs.split(BATCH)))
        for format, suffix in (("onnx", ".onnx"), ("litert", ".tflite")):
            path, options = Path(place) / f"net{suffix}", ExportOptions(target=target)
            given: Any = {"format": format, "precision": "int8", "metadata": {}, "options": options}
            try:
                started = time.monotonic()
                export(graph, inputs[:1], path, **given)
                exported = time.monotonic()
                layers = file_parity(graph, path, format, others, options=options)  # type: ignore[arg-type]
            except Exception as error:  # whatever it fails with is its result
                files[format] = {"error": explained(error)}
                continue
            wrong = first_wrong(layers)
            files[format] = {
                **furthest(layers),
                "wrong": None if wrong is None else f"{wrong.layer}: {wrong.why}",
                "weight_bits": target.weight_bits if format == "onnx" else 8,
                "export_seconds": round(exported - started, 1),
                "gate_seconds": round(time.monotonic() - exported, 1),
            }
    return {"name": name, "files": files}


def told(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['name']}: {row['error']}"
    parts = []
    for format, one in row["files"].items():
        if "error" in one:
            parts.append(f"{format} failed: {one['error']}")
            continue
        found = one["wrong"] or f"right, {one['layers_peak']:.1f} steps at most"
        cost = f"{one['gate_seconds']} s beside {one['export_seconds']} s"
        parts.append(f"{format}: {one['layers']} layers, {found}; {cost}")
    return f"{row['name']}: {'; '.join(parts)}"


if __name__ == "__main__":
    sys.exit(main())
