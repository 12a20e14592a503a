"""Structured pruning: which channels are coupled, which may leave, and the plan that says so.

surgery.py  take channels out of one layer (or silence them)
plan.py     the pruning plan: readable, replayed without tracing
groups.py   channels that leave together (torch-pruning's dependency graph), each group tried out before use
choose.py   which channels leave, so that a wanted MACs speed-up is reached
build.py    all of it together: from a model to a checked plan
"""
