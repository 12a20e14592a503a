"""Does a file compute what its graph does: layer by layer, on the file's own integers.

file_parity.py   the file itself is opened, and each layer compared
divergence.py    a second export with probes, for files that can't be opened
layers.py        what a layer differs by, and when that is wrong
"""
