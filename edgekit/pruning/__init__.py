"""Structured pruning: which channels are coupled, which may leave, and the plan that says so.

surgery.py     take channels out of one layer (or silence them)
plan.py        the pruning plan: readable, replayed without tracing
groups.py      channels that leave together, by torch-pruning's dependency graph
trial.py       trying a group or a plan out: removing channels must be the same as ignoring them
importance.py  what each channel is worth
choose.py      how many leave which group, so that MACs and parameters fall as far as wanted
build.py       all of it together: from a model to a checked plan
"""
