"""What a training learns from.

batches.py        the order of the data, augmentation
ahead.py          batches that are drawn while others are computed
mixing.py         mixup and cutmix
class_weights.py  rare classes count as much as common ones
"""
