"""What channels are worth.

slices.py           the weights that belong to each channel
criteria.py         what each channel is worth beside the others of its group
gradients.py        gradients of the loss, for some criteria
sensitivity.py      what a group loses with its channels, beside other groups
accuracy_curves.py  accuracy against the share of channels cut, group by group
sparse.py           a penalty under which weak channels shrink before the cut
"""
