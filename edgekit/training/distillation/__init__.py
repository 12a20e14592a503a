"""What a student can be told by its teacher.

logits.py      class scores: classical, standardised, decoupled (DKD), correlations (DIST)
continuous.py  numbers: squared error, also bounded by the teacher's own
pairing.py     which layer of the student goes with which of the teacher
taps.py        what these layers give while a model is called
features.py    hints and attention transfer between them
"""

from edgekit.tasks.teachers import averaged
from edgekit.training.distillation.continuous import continuous_loss
from edgekit.training.distillation.logits import dist_loss, distillation_loss, dkd_loss, standardize

__all__ = ["averaged", "continuous_loss", "dist_loss", "distillation_loss", "dkd_loss", "standardize"]
