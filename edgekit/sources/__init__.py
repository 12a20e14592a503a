"""Models by name and pictures by folder, in the place of a workload file.

request.py      what was asked for: Source
base.py         what a row is, and what all of them share
timm.py  torchvision.py  huggingface.py  function.py: a row each
model_file.py   what files of a whole model share; onnx_file.py (by onnx/), exported_program.py: rows
heads.py        weights for other classes than the data's
making.py       from a request to a Workload; load_model
writing.py      the same as a workload file, to be edited
"""
