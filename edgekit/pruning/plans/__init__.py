"""The plan, and what it does to layers.

plan.py        the pruning plan: readable, replayed without tracing
surgery.py     take channels out of one layer (or silence them)
norms.py       layer and group norm that ignore some channels
recurrent.py   the same for LSTM, GRU and RNN: inputs and hidden units
rewrites.py    what else a plan changes: numbers that modules hold, modules of another kind
copies.py      quick copies to try plans out on
plain.py       layers whose weights are computed, with ordinary ones
attention.py   torch's attention written so that heads can leave
"""
