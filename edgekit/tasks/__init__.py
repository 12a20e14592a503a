"""What a model is for: its loss, its one number called "accuracy", and what counts as the same answer.

A task is the only place that knows what outputs and targets mean. Everything else (training, pruning,
evaluation of exported files) asks it.

==================== ================== ==================== ============================
task                 outputs            targets              score
==================== ================== ==================== ============================
Classification       (N, C)             (N,) int             top-1
TokenClassification  (N, T, C)          (N, T) int           top-1 over tokens
Segmentation         (N, C, H, W)       (N, H, W) int        mean IoU
Regression           (N,) or (N, D)     same shape, float    R², mean over the D outputs
Reconstruction       any shape          same shape, float    R² over all values
Outputs              several, by name   several, by name     the lowest of its tasks' scores
Detection            one or several     boxes and labels     mAP@.5:.95
Keypoints            (N, K, H, W), …    (N, K, 3) float      PCK
==================== ================== ==================== ============================

Inputs may have any shape that the model takes: images (N, C, H, W), audio features (N, T, F), token ids
(N, T); or be several by name.

base.py        what every task says
classes.py     classes of samples, tokens and pixels
continuous.py  numbers
outputs.py     several outputs, each with a task of its own
detection/     objects in pictures
keypoints.py   points of one object
curves.py      precision over recall, and what scores mean
marks.py       what is drawn on pictures in the report
moves.py       where an augmentation moved pictures
teachers.py    what several teachers answer together
"""

from __future__ import annotations

from edgekit.tasks.base import Task
from edgekit.tasks.classes import Classification, Segmentation, TokenClassification
from edgekit.tasks.continuous import Reconstruction, Regression
from edgekit.tasks.detection import AnchorFree, Anchors, Centres, Detection, Fcos, OwnHead, Priors, Sets
from edgekit.tasks.keypoints import Keypoints
from edgekit.tasks.outputs import Outputs

__all__ = [
    "AnchorFree",
    "Anchors",
    "Centres",
    "Classification",
    "Detection",
    "Fcos",
    "Keypoints",
    "Outputs",
    "OwnHead",
    "Priors",
    "Reconstruction",
    "Regression",
    "Segmentation",
    "Sets",
    "Task",
    "TokenClassification",
]
