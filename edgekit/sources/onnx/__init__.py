"""An ONNX file as a model: its graph, spelled in torch.

reading.py      the file, checked before anything is made of it
nodes.py        what a node says, and how an op joins the table (table.py)
layers.py  elementwise.py  moves.py: the ops, by what they do
shapes.py       arithmetic on sizes, which is done while the graph is captured
spelling.py     what older exporters write out, as one op again
constants.py    what reads no input, computed once
module.py       the graph as a torch.nn.Module
"""
