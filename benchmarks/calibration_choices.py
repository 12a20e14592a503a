"""Which calibration settings keep most of a network: int8 graph against float model, without QAT.

python benchmarks/calibration_choices.py

The networks of tests/models, trained for a moment, calibrated on 4 batches of 32 samples and compared on 48
others. Rows: signal-to-noise ratio in dB with edgekit's defaults against one with other settings each, its
own or NNCF's; ``ratio`` is the difference in dB.
"""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
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
    }
    own: dict[str, tuple[CalibrationOptions, dict[str, Any]]] = {"edgekit": (CalibrationOptions(), {})}
    rows = []
    for name in NAMES.split():
        case, model = CASES[name], copy.deepcopy(trained(name))
        batches, held_out = [inputs(case, 32, seed) for seed in range(1, 5)], inputs(case, 48, 99)
        found = {}
        for setting, (options, changed) in {**own, **others}.items():
            road.quantize_pt2e = lambda *a, _changed=changed, **k: original(*a, **{**k, **_changed})
            with torch.no_grad():
                found[setting] = snr_db(
                    model(held_out), calibrate(capture(model, held_out), batches, options)(held_out)
                )
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


if __name__ == "__main__":
    sys.exit(main())
