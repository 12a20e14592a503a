"""Structured pruning: which channels are coupled, how important they are, and which may leave.

coupling/          channels that can only leave together
importance/        how important channels are
goals/             from what is wanted to how many channels stay
plans/             the plan that says what leaves, and what it does to layers
build.py           all of it together: from a model to a checked plan
compose.py         several plans one after the other as one
depth.py           residual blocks that leave as a whole
reconstruction.py  refitting what stays, without labels
"""
