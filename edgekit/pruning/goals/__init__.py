"""From what is wanted to how many channels stay in each group.

targets.py            what is wanted
costs.py              what a model costs while channels leave, estimated: MACs, parameters, channels, bytes
memory.py             peak activation memory likewise
latency_table.py      time likewise, measured layer by layer on a device
shipped.py            what an exported file shows: size, latency, memory
limits.py             how far groups may be cut, in which steps
search.py             the search: how many channels leave which group
removable_blocks.py   residual blocks that may leave as a whole
ranking.py            a search among groups of the same structure; limits for single layers
channel_multiples.py  numbers of channels that a device's kernels like
search_loop.py        search, look at the file, correct the estimate, search on
messages.py           words for what was out of reach, or overshot
"""
