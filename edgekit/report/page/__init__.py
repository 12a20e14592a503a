"""report.html: one file that works offline, built from what a run folder holds, and nothing else.

loaded.py     what is there of one or several runs, and what is missing
layers.py     which kernels of a file compute which layer
facts.py      the words and figures of each section
charts.py     the pictures, as Vega-Lite specifications
assembled.py  all of it in one page
page.html.j2, page.css, page.js

Nothing is computed anew here: whatever stands in the page was measured by the run.
"""

from __future__ import annotations

from edgekit.report.page.assembled import build, write
from edgekit.report.page.loaded import LoadedRun, load

__all__ = ["LoadedRun", "build", "load", "write"]
