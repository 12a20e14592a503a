"""Every error that edgekit raises on purpose.

The library raises; only ``cli.py`` prints and exits. An error says what is wrong, where, what was
found, what was expected, and what to do next::

    EdgekitError
    ├── InputError             exit 2: something that the user gave; nothing was started or written
    │   ├── RecipeError        a recipe: unknown name or key, value out of range (all faults at once)
    │   ├── WorkloadError      a workload file: missing, failing, or not returning a Workload
    │   ├── DataError          data: wrong shape, NaN, no samples, labels out of range
    │   ├── WeightsError       weights that don't fit the model, or are not plain tensors
    │   ├── DeviceError        a device profile: unknown name, key or transport
    │   ├── RunFolderError     an output folder that belongs to another run, or is in use
    │   ├── ComparisonError    results that can't be compared, or that are no results
    │   ├── MissingExtraError  an optional package is not installed
    │   └── DiskFullError      no space left, or the folder can't be written
    ├── StageError             exit 1: a stage, a conversion or a measurement failed
    │   ├── CaptureError       torch.export can't capture the model
    │   ├── PruneError         the wanted speed-up can't be reached, or a plan doesn't fit
    │   ├── ExportError        a converter failed, or its file disagrees with the model
    │   ├── GuardError         the recommended file broke more than the recipe's guard allows
    │   ├── BundleError        a bundle's file was changed, or it answers otherwise than its model
    │   └── MeasurementError   a runtime crashed or timed out on an artifact
    │       ├── UnreachableError   no connection to the device: worth trying again
    │       └── OutOfMemoryError   a process was killed, as the kernel does where memory runs out
    └── Interrupted            exit 130: Ctrl-C; the run can be continued
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# What a person can still read. Whatever was given may stand in a message, and may be of any size.
_MOST_CHARACTERS = 4000  # of a part of a message
_MOST_FAULTS = 50
_FAULT_CHARACTERS = 500


class EdgekitError(Exception):
    """Base of the tree above.

    Args:
        what: one sentence, what is wrong.
        where: file, key or object that it is about.
        got: what was found there.
        expected: what would have been right.
        next: what the user can do.
    """

    exit_code = 1

    def __init__(
        self, what: str, *, where: str = "", got: str = "", expected: str = "", next: str = ""
    ) -> None:
        self.what, self.where, self.got = what, where, got
        self.expected, self.next = expected, next
        super().__init__(str(self))

    def __str__(self) -> str:
        """One text of bounded length, which any terminal can be given."""
        what, where = printable(self.what), printable(self.where)
        lines = [f"{where}: {what}" if where else what]
        for label, text in (("got", self.got), ("expected", self.expected), ("next", self.next)):
            if text:
                lines.append(f"  {label + ':':<10}{printable(text)}")
        return "\n".join(lines)


class InputError(EdgekitError):
    """Something that the user gave is wrong; nothing was started or written."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe is wrong. ``faults`` holds one line for each fault, all found at once (of many the first)."""

    def __init__(
        self,
        what: str,
        *,
        faults: Iterable[str] = (),
        where: str = "",
        got: str = "",
        expected: str = "",
        next: str = "",
    ) -> None:
        told = tuple(faults)
        self.faults = tuple(printable(fault, _FAULT_CHARACTERS) for fault in told[:_MOST_FAULTS])
        if len(told) > _MOST_FAULTS:
            self.faults += (f"and {len(told) - _MOST_FAULTS:,} more",)
        super().__init__(what, where=where, got=got, expected=expected, next=next)

    def __str__(self) -> str:
        head, *rest = super().__str__().split("\n")
        return "\n".join([head, *(f"  - {fault}" for fault in self.faults), *rest])


class WorkloadError(InputError):
    """A workload file is missing, fails, or doesn't return a Workload.

    ``user_traceback`` is the traceback of the user's own code, if it raised; edgekit's frames are left out.
    """

    def __init__(
        self,
        what: str,
        *,
        user_traceback: str = "",
        where: str = "",
        got: str = "",
        expected: str = "",
        next: str = "",
    ) -> None:
        self.user_traceback = user_traceback
        super().__init__(what, where=where, got=got, expected=expected, next=next)


class DataError(InputError):
    """Samples have the wrong shape or type, hold NaN, are empty, or carry labels out of range."""


class WeightsError(InputError):
    """Weights don't fit the model, or the file holds more than plain tensors."""


class DeviceError(InputError):
    """A device profile is unknown or wrong."""


class RunFolderError(InputError):
    """The output folder belongs to another run, is in use, or is damaged."""


class ComparisonError(InputError):
    """Results of different devices or units, or a file that holds no results."""


class MissingExtraError(InputError):
    """An optional package is missing; ``next`` holds the command that installs it."""


class DiskFullError(InputError):
    """The run folder can't be written: no space left, or no permission."""


class StageError(EdgekitError):
    """A stage, a conversion or a measurement failed."""


class CaptureError(StageError):
    """``torch.export`` can't capture the model."""


class PruneError(StageError):
    """The wanted speed-up can't be reached, or a pruning plan doesn't fit the model."""


class PlanError(PruneError):
    """The pruning plan that the user named can't be read, is none, or isn't one for this model."""

    exit_code = 2


class ExportError(StageError):
    """A converter failed, or the file that it wrote disagrees with the model."""


class MeasurementError(StageError):
    """A runtime crashed, timed out, or gave no answer on an artifact."""


class GuardError(StageError):
    """The recommended file broke more than the recipe's ``guard`` allows. The whole run is kept."""


class BundleError(StageError):
    """A bundle isn't what was written, or its golden test failed. The bundle is left as it is."""


class UnreachableError(MeasurementError):
    """The device can't be reached, or the connection to it broke. Unlike a failure on it, worth a retry."""


class OutOfMemoryError(MeasurementError):
    """A process was killed (SIGKILL), as the kernel does where memory runs out, or was given none.

    Worth a retry with less at once.
    """


class Interrupted(EdgekitError):
    """Ctrl-C. What was finished is kept, and the same command goes on."""

    exit_code = 130


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"did you mean 'speedup'?"`` for a near miss, else the known names."""
    known = sorted(known)
    close = get_close_matches(name[:_FAULT_CHARACTERS], known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def printable(text: str, most: int = _MOST_CHARACTERS) -> str:
    """``text`` for a message: what a terminal would obey or can't show is escaped.

    Line breaks and tabs stay. ``most``: characters that are kept; of more, the middle is left out.
    """
    if len(text) > most:
        head, tail = most * 3 // 4, most // 4
        left_out = len(text) - head - tail
        text = f"{text[:head]} [… {left_out:,} characters …] {text[-tail:]}"
    if text.isprintable():
        return text
    return "".join(
        one if one in "\n\t" or one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
