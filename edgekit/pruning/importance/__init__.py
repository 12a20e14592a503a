"""What channels are worth.

slices.py           the weights that belong to each channel
criteria/           what makes a channel important beside the others of its group, one file each
scores.py           a model's channels by one of them
gradients.py        gradients of the loss, for some criteria
sensitivity.py      what a group loses with its channels, beside other groups
accuracy_curves.py  accuracy against the share of channels cut, group by group
sparse.py           a penalty under which weak channels shrink before the cut
"""
