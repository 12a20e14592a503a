"""The one training engine: every fine-tuning (after distilling, pruning, fake-quantising) is ``train``.

loop.py         epochs, steps, checkpoints
objective.py    the loss: the task's own, the teacher's, penalties
teacher.py      what the teacher answers
batches.py      the order of the data, augmentation
schedule.py     the learning rate over the steps
optimizer.py    which optimizer, and what weight decay is for
evaluation.py   the one evaluation
seeds.py        where the random numbers come from
"""

from edgekit.execution import has_fast_bfloat16
from edgekit.training.evaluation import Evaluation, evaluate
from edgekit.training.loop import TrainingHistory, train

__all__ = ["Evaluation", "TrainingHistory", "evaluate", "has_fast_bfloat16", "train"]
