"""A model as a flat graph of ATen ops, and what is made of it before anything is quantised.

capture.py      nn.Module -> graph
prepare.py      the module as torch.export can take it: parametrisations, names
cells.py        recurrent cells spelled by linear layers
refusal.py      why a model can't be captured
inline.py       sub-graphs of no_grad, autocast, checkpointing
mutation.py     in-place ops as functions
constants.py    what parameters alone amount to, as parameters; the values of constant expressions
products.py     einsum and its kin as linear layers and matrix products
ops.py          the ops that the graph knows, by role
normalize.py    one spelling for one meaning
fold.py         batch norm, factors and offsets folded into layers
fuse.py         training-time branches as one convolution
transposed.py   transposed convolutions as convolutions
resampling.py   resizing and pooling that runtimes differ in
probes.py       the tensors between layers as further outputs, to be compared
"""
