"""From what a user names to a workload: a file and its function, a function, a model's name and a folder of
pictures; nothing is the demo.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from edgekit.errors import WorkloadError
from edgekit.sources.request import Source, is_model_file, is_source
from edgekit.workload.loading import call, user_code
from edgekit.workload.workload import Workload
from edgekit.zoo import digits

__all__ = ["Spec", "load_workload"]

Spec: TypeAlias = str | Path | Source | Workload | Callable[[], Workload] | None

FUNCTION = "workload"  # looked for in a workload file when none is named


def load_workload(spec: Spec = None, *, made_up: bool = False) -> Workload:
    """A Workload from ``"file.py"`` (its function ``workload``), ``"file.py:function"``, a function, a
    ``Source`` (a model by name, or an ONNX file, and its data), or itself.

    None is the embedded demo. A file is the user's own code and runs as such, with its folder importable and
    the global random generators seeded, so that a run can be continued.

    ``made_up``: noise stands in for the pictures of a ``Source`` without any, for what asks the model alone.

    Raises:
        WorkloadError: file or function missing, the code failing (``user_traceback`` holds its frames alone),
            or a result that is no Workload.
        DataError, WeightsError: raised inside the user's code by edgekit, passed on; or of a ``Source``, see
            ``ImageFiles`` and ``load_model``.
    """
    if isinstance(spec, Workload):
        return spec
    if spec is None:
        return digits.workload()
    if isinstance(spec, str | Path) and is_model_file(spec):
        spec = Source(str(spec))
    if isinstance(spec, Source) or (isinstance(spec, str) and is_source(spec)):
        from edgekit.sources.foreign import refuse_foreign
        from edgekit.sources.making import make

        if isinstance(spec, Source):
            refuse_foreign(spec.model)
        return make(spec if isinstance(spec, Source) else Source(spec), made_up=made_up)
    made: object
    if callable(spec):
        where = getattr(spec, "__qualname__", repr(spec))
        with user_code(where):
            made = spec()
    else:
        from edgekit.sources.foreign import refuse_foreign

        refuse_foreign(spec)
        made, where = call(spec, FUNCTION)
    if not isinstance(made, Workload):
        raise WorkloadError(
            "the function returned no Workload",
            where=where,
            got=type(made).__name__,
            expected="an edgekit.Workload",
            next="end the function with: return Workload(name=…, model=…, …)",
        )
    return made
