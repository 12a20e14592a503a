"""What a user brings: a trained model, its data, what it is for, and what stands in front of it.

workload.py       the three together, checked against each other
samples.py        data as tensors; items.py reads data sets
preprocessing.py  from raw samples to inputs, as plain data; augmentation (with shifting.py, zooming.py)
fingerprint.py    what results depend on, as one number
streaming.py      outputs that are inputs of the next step
answering.py      does the model answer as a model should, asked before any work
opening.py        from a file, a function or nothing to a workload; loading.py runs the user's code
"""

from __future__ import annotations

from edgekit.weights import load_weights
from edgekit.workload.preprocessing import Augmentation, Layout, Preprocessing
from edgekit.workload.samples import Samples
from edgekit.workload.workload import Workload

__all__ = ["Augmentation", "Layout", "Preprocessing", "Samples", "Workload", "load_weights"]
