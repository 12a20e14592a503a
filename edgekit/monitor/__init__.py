"""How a run is watched: speed and remaining time, signs of life in long steps, trackers of experiments."""
