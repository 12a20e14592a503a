"""Pictures with boxes from files as others write them: COCO's JSON, YOLO's text, Pascal VOC's XML.

All of it is input that anybody may have made: files stay inside of their folders and have a largest size, XML
declares nothing, pictures are decoded as all others are (``edgekit/pictures``).

coco.py, yolo.py, voc.py  one reader each, to ``Labelled``
labelled.py               what they all come to, and what can be wrong with it
layouts.py                in which form a folder has them
pictures.py               a dataset of it, at the size of a model's input
files.py                  BoxFiles: what lies in a folder, in whatever form, as the data of a workload
fitting.py                how a picture of any size fits there, and boxes both ways
"""

from __future__ import annotations

from edgekit.annotations.coco import read_coco
from edgekit.annotations.files import BoxFiles
from edgekit.annotations.fitting import Fit
from edgekit.annotations.pictures import Pictures
from edgekit.annotations.voc import read_voc
from edgekit.annotations.yolo import read_yolo

__all__ = ["BoxFiles", "Fit", "Pictures", "read_coco", "read_voc", "read_yolo"]
