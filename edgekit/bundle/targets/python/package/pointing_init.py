"""A compressed model that finds points, with all that it needs: NumPy and one runtime.

>>> finder = Finder.load()
>>> finder.find("picture.jpg")      # points in its pixels, each by its name
"""

from .pointing import Finder, Point

__all__ = ["Finder", "Point"]
