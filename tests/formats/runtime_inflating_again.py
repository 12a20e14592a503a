"""A second runtime that reads the same files: the first one by another name."""

from typing import Any

from runtimes import sibling

MODEL: Any = sibling("runtime_inflating").MODEL
