"""The loss of a training, and how weights move.

objective.py  the loss: the task's own, the teacher's, penalties
optimizer.py  which optimizer, and what weight decay is for
descent.py    one step: gradients, their limit, the scale that float16 needs
schedule.py   the learning rate over the steps
lr_finder.py  the learning rate itself, where it is "auto"
averaging.py  the running average of the weights
"""
