"""A compressed detector with all that it needs: NumPy and one runtime.

>>> detector = Detector.load()
>>> detector.detect("picture.jpg")      # boxes in its pixels, the surest first
"""

from .detecting import Box, Detector

__all__ = ["Box", "Detector"]
