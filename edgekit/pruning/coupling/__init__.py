"""Which channels can only leave together.

groups.py      groups of channels: found, tried out, repaired or kept whole
found.py       such groups, and the plan in which some of their channels leave
depgraph.py    groups by torch-pruning's dependency graph
couplings.py   groups by measuring what depends on what, where that graph is wrong
probe.py       a model without its layers, for that
patterns.py    in which lots channels may leave that can't one by one
repair.py      trying those patterns, and numbers that follow
trial.py       trying a group or a plan out: removing channels must be the same as ignoring them
"""
