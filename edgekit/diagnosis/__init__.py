"""What compression broke: an exported file's answers against the trained model's, sample by sample.

classes.py       accuracy for each class, before and after; who is taken for whom
flips.py         samples whose answer changed
confidence.py    calibration: whether a probability means what it says
spoiling.py      which of several inputs may be corrupted, and what of them stays
scores.py        each sample's own score, for tasks of other targets than labels and numbers
groups.py        accuracy for each group that the workload names, and the gap between them

NumPy only: all of it works on answers that were kept, without a model or a runtime.
"""
