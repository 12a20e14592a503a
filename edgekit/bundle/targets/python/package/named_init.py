"""A compressed model with all that it needs: NumPy and one runtime. Its inputs and outputs have names.

>>> model = Model.load()
>>> answers = model.predict({name: sample, …})      # raw, as a camera or a file gives it
>>> answers[name].scores
"""

from .named import Model, Stream
from .postprocessing import Prediction

__all__ = ["Model", "Prediction", "Stream"]
