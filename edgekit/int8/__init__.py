"""The int8 graph: one explicit quantised graph of ATen ops, from which every exporter starts.

capture.py      nn.Module -> graph of ATen ops, batch norm folded
fold.py         batch norm folding
ops.py          the ops that the graph knows, by role; one spelling for one meaning
placement.py    where quantisers go (a torchao Quantizer)
calibration.py  NNCF finds the ranges; explicit quantise/dequantise pairs
grid.py         clamps that the integer grid does anyway; integer spellings (int8, uint8)
trainable.py    the form that is trained: pairs as fake-quantise ops, and back
storage.py      saving and loading an int8 graph
coverage.py     which share of MACs runs in integer kernels in an exported file
"""
