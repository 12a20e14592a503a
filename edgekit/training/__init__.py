"""The one training engine: every fine-tuning (after distilling, pruning, fake-quantising) is ``train``.

data/               what is learned from: batches, their augmentation and mixing
teachers/           whom it listens to beside labels
steps/              the loss, and how weights move
computing/          how all that is computed here: device, precision, compiled, replayed, several processes
loop.py             epochs, steps, checkpoints; going back where it diverges
divergence.py       when it does
sizing.py           batches, learning rate and epochs follow the size of the data
learning.py         which parameters learn, and which stay
train_mode.py       the mode in which a model trains
held_out.py         which training samples judge
early_stopping.py   the best epoch on held-out training data
floor.py            never below the start
overfitting.py      how far training and validation scores part
failures.py         why a training can't go on
keeping.py          the last good epoch, in memory and in a checkpoint
history.py          what a training tells afterwards
logs.py             training.csv
evaluation.py       the one evaluation
seeds.py            where the random numbers come from
"""

from edgekit.training.evaluation import Evaluation, evaluate
from edgekit.training.loop import TrainingHistory, train

__all__ = ["Evaluation", "TrainingHistory", "evaluate", "train"]
