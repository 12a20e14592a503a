"""A compressed model with all that it needs: NumPy and one runtime.

>>> model = Model.load()
>>> model.predict(sample).top(3)        # sample: raw, as a camera or a file gives it
"""

from .model import Model
from .postprocessing import Prediction

__all__ = ["Model", "Prediction"]
