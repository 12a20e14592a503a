"""Which calibration settings keep most of a network: int8 graph against float model, without QAT.

python benchmarks/calibration_choices.py

The networks of tests/models, trained for a moment, calibrated on 4 batches of 32 samples and compared on 48
others. Rows: signal-to-noise ratio in dB with edgekit's defaults against one with other settings each, its
own or NNCF's; ``ratio`` is the difference in dB. "weights not rounded" is no setting: it is what the best
rounding of weights to 8 bits that there may be (AdaRound, block-wise reconstruction) could gain at most, but
for errors of weights that make up for those of activations.
"""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_UNROUNDED = "weights not rounded"
NAMES = (
    "resnet8 resnet50 mobilenet_v1 mobilenet_v2 mobilenet_v3_small efficientnet_lite0 efficientnet_b0 regnet "
    "mobileone vit_tiny ds_cnn densenet inception shufflenet_v2 unet"
)


def main() -> int:
    """Measure, print and write benchmarks/results/calibration_choices.json."""
    sys.path.insert(0, str(ROOT))
    import nncf.experimental.torch.fx as road
    import torch
    from provenance import surroundings

    from edgekit.formats.parity.divergence import snr_db
    from edgekit.graph.capture import capture
    from edgekit.int8.calibration import CalibrationOptions, calibrate
    from tests.models import CASES, inputs, trained

    original = road.quantize_pt2e
    plain = CalibrationOptions(ranges="minmax", bias_correction=False)
    others: dict[str, tuple[CalibrationOptions, dict[str, Any]]] = {
        "ranges as seen, no bias correction": (plain, {}),
        "NNCF's fast bias correction": (plain, {"fast_bias_correction": True}),
        "NNCF's range estimator": (plain, {"activations_range_estimator_params": None}),
        "percentile 99.99": (replace(plain, ranges="percentile"), {}),
        "least squares ranges": (replace(plain, ranges="mse"), {}),
        "bias correction": (replace(plain, bias_correction=True), {}),
        "least squares weights too": (CalibrationOptions(weight_ranges="mse"), {}),
        "channels not made alike": (CalibrationOptions(equalise="never"), {}),
        _UNROUNDED: (CalibrationOptions(), {}),
    }
    own: dict[str, tuple[CalibrationOptions, dict[str, Any]]] = {"edgekit": (CalibrationOptions(), {})}
    rows = []
    for name in NAMES.split():
        case, model = CASES[name], copy.deepcopy(trained(name))
        batches, held_out = [inputs(case, 32, seed) for seed in range(1, 5)], inputs(case, 48, 99)
        found = {}
        for setting, (options, changed) in {**own, **others}.items():
            road.quantize_pt2e = lambda *a, _changed=changed, **k: original(*a, **{**k, **_changed})
            made = calibrate(capture(model, held_out), batches, options)
            if setting == _UNROUNDED:
                _unround_weights(made)
            with torch.no_grad():
                found[setting] = snr_db(model(held_out), made(held_out))
        for setting in others:
            rows.append(
                {
                    "name": name,
                    "metric": "signal-to-noise ratio, int8 graph against float model",
                    "unit": "dB",
                    "edgekit": round(found["edgekit"], 2),
                    "peer": round(found[setting], 2),
                    "peer_name": setting,
                    "ratio": round(found["edgekit"] - found[setting], 2),
                    "samples": len(held_out),
                    **surroundings(),
                }
            )
        print(name, {setting: round(value, 1) for setting, value in found.items()}, flush=True)
    path = ROOT / "benchmarks" / "results" / "calibration_choices.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def _unround_weights(graph: Any) -> None:
    """Take the quantisers of weights out of an int8 graph; those of activations stay."""
    from edgekit.graph import ops

    for node in list(graph.graph.nodes):
        if node.target is ops.qd.quantize_per_channel.default:
            for dequantize in list(node.users):
                dequantize.replace_all_uses_with(node.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()


if __name__ == "__main__":
    sys.exit(main())
