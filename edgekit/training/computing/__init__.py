"""How a training computes on the machine that it finds.

device.py       the CPU, or a GPU of a process's own
speed.py        the precision that is faster here, whether compiling and replaying pay
remembered.py   where such a choice is kept
cuda_graphs.py  passes recorded once and replayed in every step
memory.py       what a step frees stays for the next one
parallel.py     several processes that train together
"""
