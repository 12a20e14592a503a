"""Whom a training listens to beside labels.

teaching.py  all of it: which teachers contribute, which layers learn from the original model's
teacher.py   what one answers, and the feature maps that it shows
several.py   what several answer together
fused.py     the fast form of a teacher on a CPU
"""
