"""The int8 graph: one explicit quantised graph of ATen ops, from which every exporter starts.

It is captured in ``edgekit/graph``.

lower.py        ops spelled as others that every runtime has in integer
placement.py    where quantisers go (a torchao Quantizer)
precision.py    which layers stay float, by name
sensitivity.py  which quantisers a part of a network has to itself, and the graph without them
calibration.py  NNCF places the pairs of quantise/dequantise; the steps of calibrating in order
ranges.py       ranges from the distribution of values
range_trial.py  which way of finding ranges brings the whole graph nearest
spans.py        tensors whose numbers span too much for one grid
doubts.py       whether calibration inputs are enough, and like those that come
bias.py         what rounding the weights moves the mean by, off the biases
unify.py        grids that tensors share, known grids, constants, symmetric weights
joins.py        concatenations: which grid, and what is requantised in front
recurrent.py    int8 weights in recurrent layers, which stay whole
scores.py       what stands around a softmax and stays float
masks.py        masks by replacement as masks by addition
tail.py         the float tail behind the last layers that multiply
heads.py        last layers whose channels have ranges unlike each other
statistics.py   what something is divided by, which stays float
streams.py      sums that only norms read, which stay float
accumulators.py biases that int32 can't hold
grid.py         clamps that the grid does anyway, biases on their grid; integer spellings (int8, uint8)
trainable.py    the form that is trained: pairs as fake-quantise ops, and back
fake_quantize.py  these ops, with gradients
integers.py     the graph with sums of integers, as kernels compute it
scales.py       scales that learn with the weights
storage.py      saving and loading an int8 graph
"""
