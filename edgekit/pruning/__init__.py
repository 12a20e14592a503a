"""Structured pruning: which channels are coupled, which may leave, and the plan that says so.

surgery.py     take channels out of one layer (or silence them)
norms.py       layer and group norm that ignore some channels
recurrent.py   the same for LSTM, GRU and RNN: inputs and hidden units
attention.py   torch's attention written so that heads can leave
plan.py        the pruning plan: readable, replayed without tracing
rewrites.py    what else a plan changes: numbers that modules hold, modules of another kind
groups.py      channels that leave together: found, tried out, repaired or kept whole
found.py       such groups, and the plan in which some of their channels leave
depgraph.py    groups by torch-pruning's dependency graph, and for its measures of importance
couplings.py   groups by measuring what depends on what, where that graph is wrong
probe.py       a model without its layers, for that
patterns.py    in which lots channels may leave that can't one by one
repair.py      trying those patterns, and numbers that follow
trial.py       trying a group or a plan out: removing channels must be the same as ignoring them
slices.py      the weights that belong to each channel
importance.py  what each channel is worth
gradients.py   gradients of the loss, for some measures of that
ranking.py     groups that are ranked together; limits for single layers
choose.py      how many leave which group, so that MACs and parameters fall as far as wanted
build.py       all of it together: from a model to a checked plan
depth.py       residual blocks that leave as a whole
compose.py     several plans one after the other as one
sparse.py      a penalty under which weak channels shrink before the cut
sensitivity.py accuracy against the share of channels cut, group by group
"""
