"""What activations take, planned as a runtime would: arena.py the planner, graph_arena.py that of a graph."""
