"""The int8 graph: one explicit quantised graph of ATen ops, from which every exporter starts.

capture.py      nn.Module -> graph of ATen ops
prepare.py      the module as torch.export can take it: parametrisations, names
refusal.py      why a model can't be captured
inline.py       sub-graphs of no_grad, autocast, checkpointing
mutation.py     in-place ops as functions
constants.py    what parameters alone amount to, as parameters
products.py     einsum and its kin as linear layers and matrix products
ops.py          the ops that the graph knows, by role
normalize.py    one spelling for one meaning
fold.py         batch norm, factors and offsets folded into layers
fuse.py         training-time branches as one convolution
transposed.py   transposed convolutions as convolutions
resampling.py   resizing and pooling that runtimes differ in
lower.py        ops spelled as others that every runtime has in integer
placement.py    where quantisers go (a torchao Quantizer)
calibration.py  NNCF places the pairs of quantise/dequantise; the steps of calibrating in order
ranges.py       ranges from the distribution of values
spans.py        tensors whose numbers span too much for one grid
doubts.py       whether calibration inputs are enough, and like those that come
bias.py         what rounding the weights moves the mean by, off the biases
unify.py        grids that tensors share, known grids, constants, symmetric weights
joins.py        concatenations: which grid, and what is requantised in front
scores.py       what stands around a softmax and stays float
masks.py        masks by replacement as masks by addition
tail.py         the float tail behind the last layers that multiply
heads.py        last layers whose channels have ranges unlike each other
statistics.py   what something is divided by, which stays float
streams.py      sums that only norms read, which stay float
accumulators.py biases that int32 can't hold
constants.py    the values of constant expressions
grid.py         clamps that the grid does anyway, biases on their grid; integer spellings (int8, uint8)
trainable.py    the form that is trained: pairs as fake-quantise ops, and back
fake_quantize.py  these ops, with gradients
scales.py       scales that learn with the weights
storage.py      saving and loading an int8 graph
probes.py       the tensors between layers as further outputs, to be compared
coverage.py     which share of MACs runs in integer kernels in an exported file
"""
