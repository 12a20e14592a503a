"""A compressed model of sounds with all that it needs: NumPy and one runtime.

>>> listener = Listener.load()
>>> listener.hear("yes.wav").top(3)     # or samples (n,) of -1 to 1, at listener.rate
"""

from .model import Model
from .postprocessing import Prediction
from .sounds import Listener

__all__ = ["Listener", "Model", "Prediction"]
