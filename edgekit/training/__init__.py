"""The one training engine: every fine-tuning (after distilling, pruning, fake-quantising) is ``train``.

loop.py         epochs, steps, checkpoints; going back where it diverges
divergence.py   when it does
keeping.py      the last good epoch, in memory and in a checkpoint
history.py      what a training tells afterwards
logs.py         training.csv
objective.py    the loss: the task's own, the teacher's, penalties
teacher.py      what the teacher answers
teachers.py     what several answer together
fused.py        its fast form
batches.py      the order of the data, augmentation
mixing.py       mixup and cutmix
speed.py        the precision that is faster here, whether compiling pays
remembered.py   where such a choice is kept
schedule.py     the learning rate over the steps
lr_finder.py    the learning rate itself, where it is "auto"
averaging.py    the running average of the weights
early_stopping.py  the best epoch on held-out training data
class_weights.py   rare classes count as much as common ones
parallel.py     several processes that train together
optimizer.py    which optimizer, and what weight decay is for
evaluation.py   the one evaluation
seeds.py        where the random numbers come from
"""

from edgekit.training.evaluation import Evaluation, evaluate
from edgekit.training.loop import TrainingHistory, train

__all__ = ["Evaluation", "TrainingHistory", "evaluate", "train"]
