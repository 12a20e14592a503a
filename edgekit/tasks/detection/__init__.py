"""Detection: boxes of unequal number, heads as data, average precision.

task.py               the task: what fits it, its scores, what counts as the same answer
heads.py              what every description of outputs says
anchor_free.py        distances at places, with distributions or without (YOLOv6 to v11 style)
priors.py             given boxes that are moved and stretched (SSD)
dense.py              other heads with a box and scores at every place: how they learn
anchors.py            anchors and objectness (YOLOv5)
fcos.py               distances, and how central a place is (FCOS)
centres.py            heat at the middles of objects (CenterNet)
sets.py, matching.py  each object once, and which answer learns which (DETR)
own.py                functions of the user's own
finished.py           what files say that decode by themselves
endings.py            what such files compute behind the last layers
layouts.py            in which shapes such a head gives its numbers
assigning.py          which place learns which object
losses.py             losses of distributions and scores
boxes.py              boxes as numbers: IoU and its kin
suppression.py        of many answers for one object the best
average_precision.py  the COCO protocol
marking.py            answers and objects as they are drawn on their picture
moving.py             boxes that go along with their pictures
faults.py             what can be wrong with boxes
"""

from __future__ import annotations

from edgekit.tasks.detection.anchor_free import AnchorFree
from edgekit.tasks.detection.anchors import Anchors
from edgekit.tasks.detection.centres import Centres
from edgekit.tasks.detection.fcos import Fcos
from edgekit.tasks.detection.heads import Candidates, Head
from edgekit.tasks.detection.own import OwnHead
from edgekit.tasks.detection.priors import Priors
from edgekit.tasks.detection.sets import Sets
from edgekit.tasks.detection.task import Detection

__all__ = [
    "AnchorFree",
    "Anchors",
    "Candidates",
    "Centres",
    "Detection",
    "Fcos",
    "Head",
    "OwnHead",
    "Priors",
    "Sets",
]
