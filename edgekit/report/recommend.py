"""Which file to take: the best among those that keep the accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from edgekit.formats import FORMATS
from edgekit.report.summary import Artifact, Measured, Recommended
from edgekit.units import human_bytes, human_ns, human_share

_TOLERANCE = 1e-9  # points; for drops that are equal to the limit but for rounding


def recommend(
    artifacts: Sequence[Artifact],
    measurements: Sequence[Measured],
    *,
    accuracy: float,
    reference: str,
    objective: Literal["latency", "size"] = "latency",
    max_accuracy_drop: float = 1.0,
    score: str = "accuracy",
    every_channel: bool = False,
) -> Recommended:
    """The fastest (or smallest) file that loses at most ``max_accuracy_drop`` points, with the reason.

    Latency is p50 with the fewest threads measured, on the first device, in whichever runtime a file is
    fastest and keeps the accuracy. The original model's file takes part: where nothing beats it, that is
    recommended. If no file keeps the accuracy, the most accurate one is.

    Args:
        artifacts: all files; at least one.
        measurements: those of them that could be measured.
        accuracy: of the trained model.
        reference: ``Artifact.file`` of the original model's fp32 ONNX.
        objective: what to be best in.
        max_accuracy_drop: in points, 1.0 lets 91.7 % fall to 90.7 %.
        score: what the task's number is called.
        every_channel: whether a file that int8 cost a channel of its answers (``lost_channels``) is out, too:
            for numbers that are used as they are. An average over channels hides one.
    """
    timed = main_measurements(measurements)
    near = [one for one in artifacts if drop(one, accuracy) <= max_accuracy_drop + _TOLERANCE]
    kept = [one for one in near if not (every_channel and one.lost_channels)]
    limit = f"{max_accuracy_drop:g} {'point' if max_accuracy_drop == 1 else 'points'}"
    if len(kept) < len(near):
        limit += " (and lose no channel)"
    if not kept:
        best = max(artifacts, key=lambda one: (one.accuracy, -one.size_bytes))
        why = f"no file keeps within {limit} of the trained model's {human_share(accuracy)}; this one is the "
        why += "most accurate"
        return _told(best, timed, accuracy, reference, artifacts, why, within_limit=False, score=score)
    compressed = [one for one in kept if one.file != reference]
    if not compressed:
        files = [one for one in artifacts if one.file != reference]
        nearest = max(files, key=lambda one: one.accuracy, default=None)
        why = "the original model: "
        why += (
            "there is no other file"
            if nearest is None
            else (
                f"no compressed file keeps within {limit}, the most accurate one ({nearest.file}) loses "
                f"{drop(nearest, accuracy):.2f}"
            )
        )
        return _told(
            kept[0], timed, accuracy, reference, artifacts, why, within_limit=nearest is None, score=score
        )
    among = [one for one in kept if one.file in timed] if objective == "latency" else []
    if among:
        fastest = {one.file: timed[one.file] for one in among}
        for one in among:
            for other in _elsewhere(one, timed[one.file], measurements, accuracy, max_accuracy_drop):
                fastest[one.file] = min(fastest[one.file], other, key=lambda row: row.p50_ns)
        best = min(among, key=lambda one: (fastest[one.file].p50_ns, one.size_bytes))
        timed = {**timed, best.file: fastest[best.file]} if best.file != reference else timed
        why = f"the fastest of the {len(among)} files that keep within {limit} of the trained model"
        if best.file == reference:
            why = f"the original model: none of the {len(among) - 1} compressed files that keep within "
            why += f"{limit} is faster"
    else:
        best = min(kept, key=lambda one: (one.size_bytes, one.file))
        why = f"the smallest of the {len(kept)} files that keep within {limit} of the trained model"
        if objective == "latency":
            why += " (no latency was measured)"
    return _told(best, timed, accuracy, reference, artifacts, why, score=score)


def drop(artifact: Artifact, accuracy: float) -> float:
    """Points that a file lost against the trained model's ``accuracy``; negative if it gained."""
    return 100 * (accuracy - artifact.accuracy)


def main_measurements(measurements: Sequence[Measured]) -> dict[str, Measured]:
    """File → its measurement on the first device with the fewest threads, in the runtime by which it is
    judged. By these files are compared.
    """
    if not measurements:
        return {}
    device = measurements[0].device
    there = [one for one in measurements if one.device == device]
    threads = min(one.threads for one in there)
    return {one.artifact: one for one in in_own_runtime(there) if one.threads == threads}


def in_own_runtime(measurements: Sequence[Measured]) -> list[Measured]:
    """Those in the runtime by which a file is judged: it stands before others that read the file."""
    judged: dict[tuple[str, str], str] = {}
    for one in measurements:
        judged.setdefault((one.artifact, one.device), one.runtime)
    return [one for one in measurements if one.runtime == judged[one.artifact, one.device]]


def _elsewhere(
    file: Artifact, main: Measured, measurements: Sequence[Measured], accuracy: float, most: float
) -> list[Measured]:
    """The file's measurements in other runtimes, beside ``main``, in which it keeps the accuracy as well."""
    found = []
    for one in measurements:
        beside = one.artifact == file.file and (one.device, one.threads) == (main.device, main.threads)
        own = file.runtimes.get(one.runtime)
        if beside and own is not None and 100 * (accuracy - own.accuracy) <= most + _TOLERANCE:
            found.append(one)
    return found


def _told(
    best: Artifact,
    timed: dict[str, Measured],
    accuracy: float,
    reference: str,
    artifacts: Sequence[Artifact],
    why: str,
    *,
    score: str,
    within_limit: bool = True,
) -> Recommended:
    """The recommendation with all its figures in one sentence."""
    one = timed.get(best.file)
    judged = FORMATS[best.format].runtime
    runtime = one.runtime if one is not None else judged
    own = best.runtimes[runtime].accuracy if runtime != judged else best.accuracy
    facts = [f"{score} {human_share(own)} ({_signed(100 * (own - accuracy))} points)"]
    if one is not None:
        original = timed.get(reference)
        gain = (
            ""
            if original is None or original is one
            else (
                f", {original.p50_ns / one.p50_ns:.2f}× as fast as the original's {human_ns(original.p50_ns)}"
            )
        )
        plural = "" if one.threads == 1 else "s"
        facts.append(f"p50 {human_ns(one.p50_ns)} with {one.threads} thread{plural} on {one.device}{gain}")
    size = {item.file: item.size_bytes for item in artifacts}.get(reference)
    smaller = "" if size is None or best.file == reference else f", {size / best.size_bytes:.2f}× smaller"
    facts.append(f"{human_bytes(best.size_bytes)}{smaller}")
    reason = f"{why[0].upper()}{why[1:]}: {'; '.join(facts)}."
    return Recommended(
        artifact=best.file,
        runtime=runtime,
        reason=reason,
        device=one.device if one else "",
        threads=one.threads if one else None,
        within_limit=within_limit,
    )


def _signed(points: float) -> str:
    """With a real minus sign, and never −0.00."""
    rounded = round(points, 2) + 0.0
    return f"+{rounded:.2f}" if rounded > 0 else f"{rounded:.2f}".replace("-", "−")
