"""Texts with labels, and the tokens that a model is given.

listing.py    which texts there are: tables, a text file for each class, folders of classes
transform.py  TextTransform: whose tokens, and how many, as plain data
files.py      TextFiles: all of it as the data of a workload
"""
