"""What came out slower, larger or worse than it should, and why: said first, not left to be found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgekit.formats import FORMATS
from edgekit.report.recommend import drop, in_own_runtime
from edgekit.report.summary import Artifact, Failed, Figures, Measured, StageRow, Warned
from edgekit.units import human_bytes, human_ns, human_share

_SLOWER = 1.02  # medians that differ by less are not told apart
_LARGER = 1.02
_AGREEMENT = 0.99
_ISLANDS = 0.3  # share of the time above which float islands are the reason that int8 is slow
_ITS_OWN_DB = 6.0  # that a file's channel is behind its int8 graph's
_NAMED = 3  # layers named in one warning


def verdicts(
    baseline: Figures,
    stages: Sequence[StageRow],
    artifacts: Sequence[Artifact],
    measurements: Sequence[Measured],
    failures: Sequence[Failed],
    *,
    reference: str,
    max_accuracy_drop: float,
    dot_products: bool | None = None,
    score: str = "accuracy",
) -> list[Warned]:
    """All that a reader should know before the table, the worst first.

    ``dot_products``: whether the CPU multiplies int8 in hardware (x86 with VNNI or AMX, ARM with dot
    products); None where that isn't known. ``score``: what the task's number is called.
    """
    return [
        *_failed(failures),
        *_accuracy(baseline, stages, artifacts, max_accuracy_drop, score),
        *_calibration(stages),
        *_agreement(artifacts),
        *_lost_channels(artifacts),
        *_amplified(artifacts),
        *_coverage(artifacts, {stage.kind: stage.kept_float for stage in stages}),
        *_slower(artifacts, in_own_runtime(measurements), reference, dot_products),
        *_larger(artifacts, reference),
        *_unstable(measurements),
    ]


def _failed(failures: Sequence[Failed]) -> Iterator[Warned]:
    """One warning for all files that failed on a device for one reason: it was unplugged, say."""
    for device, error in dict.fromkeys((one.device, one.error) for one in failures):
        files = list(
            dict.fromkeys(one.artifact for one in failures if (one.device, one.error) == (device, error))
        )
        what = files[0] if len(files) == 1 else f"{len(files)} files"
        yield Warned(kind="failed", about=files[0], message=f"{what} could not be measured: {error}")


def _unstable(measurements: Sequence[Measured]) -> Iterator[Warned]:
    """One warning a device: on a busy machine nearly every timing is unstable, all for one reason."""
    for device in dict.fromkeys(one.device for one in measurements):
        there = [one for one in measurements if one.device == device]
        shaky = [one for one in there if one.unstable]
        if not shaky:
            continue
        first = shaky[0]
        message = (
            f"{len(shaky)} of {len(there)} timings on {device} are unstable (marked ?): take small "
            f"differences for nothing. {first.artifact} with {_threads(first)}, for one: {first.unstable}"
        )
        yield Warned(kind="unstable", about=device, message=message)


def _accuracy(
    baseline: Figures, stages: Sequence[StageRow], artifacts: Sequence[Artifact], limit: float, score: str
) -> Iterator[Warned]:
    for one in artifacts:
        lost = drop(one, baseline.accuracy)
        if lost > limit + 1e-9:
            message = f"{one.file} lost {lost:.2f} points of {score} ({human_share(baseline.accuracy)} to "
            message += f"{human_share(one.accuracy)}), more than the {limit:g} allowed"
            where = _rung(baseline, stages, one)
            yield Warned(kind="accuracy", about=one.file, message=f"{message}; {where}")


def _rung(baseline: Figures, stages: Sequence[StageRow], artifact: Artifact) -> str:
    """Where on the way from the trained model to the file most accuracy was lost."""
    steps, before = [], baseline.accuracy
    for stage in stages if artifact.parent else ():
        steps.append((before - stage.accuracy, f"the {stage.kind} stage"))
        before = stage.accuracy
        if stage.kind == artifact.parent:
            break
    steps.append((before - artifact.accuracy, "the exported file itself: it differs from its torch model"))
    lost, where = max(steps)
    return f"{100 * lost:.2f} of them in {where}"


def _calibration(stages: Sequence[StageRow]) -> Iterator[Warned]:
    for stage in stages:
        for doubt in stage.doubts:
            yield Warned(kind="calibration", about=stage.kind, message=f"{stage.kind}: {doubt}")


def _agreement(artifacts: Sequence[Artifact]) -> Iterator[Warned]:
    for one in artifacts:
        if one.parity < _AGREEMENT:
            message = f"{one.file} gives the same answer as the torch model that it was made from on "
            message += f"{human_share(one.parity)} of the validation samples only"
            yield Warned(kind="agreement", about=one.file, message=message)


def _lost_channels(artifacts: Sequence[Artifact]) -> Iterator[Warned]:
    """One warning for all files that lost the same channel alike."""
    told: dict[tuple[int, bool], list[Artifact]] = {}
    for one in artifacts:
        if one.lost_channels is not None:
            worst = one.lost_channels.worst[0]
            own = worst.graph_snr_db - worst.snr_db > _ITS_OWN_DB
            told.setdefault((worst.channel, own), []).append(one)
    for (channel, own), files in told.items():
        lost = files[0].lost_channels
        assert lost is not None
        worst = lost.worst[0]
        named = files[0].file if len(files) == 1 else f"{files[0].file} and {len(files) - 1} more"
        message = f"{named}: channel {channel} of the {lost.channels} answers is {worst.snr_db:.1f} dB from "
        message += f"the float model, all together {lost.snr_db:.1f} dB"
        if lost.count > 1:
            message += f"; {lost.count} channels are like that"
        message += (
            f"; in its int8 graph it is {worst.graph_snr_db:.1f} dB: the file itself loses it"
            if own
            else "; int8 itself loses it (stages.qat.training.epochs may bring it back)"
        )
        yield Warned(kind="agreement", about=files[0].file, message=message)


def _amplified(artifacts: Sequence[Artifact]) -> Iterator[Warned]:
    """Right files of networks that are not steady: another runtime, or a newer one, will answer otherwise."""
    for one in artifacts:
        if one.amplified and one.snr_db is not None and one.steady_db is not None:
            # The name says so (Format.tags).
            coarse = "_7bit" in one.file
            weights = "its weights have 7 bits, as x86 without VNNI needs them, and " if coarse else ""
            message = (
                f"{one.file} answers at {one.snr_db:.1f} dB from its int8 graph, though each of its layers "
                f"is right by itself: {weights}the network makes every rounding grow (one in a thousand of "
                f"them moved by a step, the graph answers at {one.steady_db:.1f} dB from itself); train it "
                "in int8 (stages.qat.training.epochs), or keep it in float"
            )
            yield Warned(kind="agreement", about=one.file, message=message)


def _coverage(artifacts: Sequence[Artifact], kept: Mapping[str, Sequence[str]]) -> Iterator[Warned]:
    """``kept``: by stage, modules that it was told to leave in float."""
    for one in artifacts:
        if one.precision != "int8":
            continue
        if one.int8_coverage is None:
            message = f"{one.file}: how much of it runs in integer kernels couldn't be counted"
            yield Warned(kind="coverage", about=one.file, message=message)
        elif one.int8_coverage < 1:
            message = (
                f"{one.file}: {human_share(1 - one.int8_coverage)} of the MACs run in float: {_layers(one)}"
            )
            if names := kept.get(one.parent):
                message += f"; on purpose: {', '.join(names[:_NAMED])}"
                message += f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            yield Warned(kind="coverage", about=one.file, message=message)


def _layers(artifact: Artifact) -> str:
    layers = artifact.float_layers
    named = "; ".join(f"{layer.name} ({layer.reason})" for layer in layers[:_NAMED])
    return named + (f"; and {len(layers) - _NAMED} more" if len(layers) > _NAMED else "")


def _slower(
    artifacts: Sequence[Artifact], measurements: Sequence[Measured], reference: str, dot_products: bool | None
) -> Iterator[Warned]:
    """Files slower than the original, and int8 files slower than fp32 in the same format; once a device."""
    macs = {one.file: one.macs for one in artifacts}
    by_place = {(one.artifact, one.device, one.threads): one for one in measurements}
    by_kind = {(one.format, one.precision): one.file for one in artifacts if one.file != reference}
    for device in dict.fromkeys(one.device for one in measurements):
        for artifact in artifacts:
            rivals = [reference] if artifact.file != reference else []
            if artifact.precision == "int8":
                rivals.append(by_kind.get((artifact.format, "fp32"), reference))
            for rival in dict.fromkeys(rivals):
                pairs = [
                    (one, by_place[rival, device, one.threads])
                    for one in measurements
                    if (one.artifact, one.device) == (artifact.file, device)
                    and (rival, device, one.threads) in by_place
                ]
                slow = [(one, other) for one, other in pairs if one.p50_ns > _SLOWER * other.p50_ns]
                if slow:
                    why = _why_slower(artifact, macs[rival], dot_products)
                    yield _told_slower(
                        artifact, "the original model" if rival == reference else rival, slow, why
                    )


def _told_slower(
    artifact: Artifact, rival: str, slow: Sequence[tuple[Measured, Measured]], why: str
) -> Warned:
    figures = "; ".join(
        f"{_threads(one)}: {human_ns(one.p50_ns)} against {human_ns(other.p50_ns)}" for one, other in slow
    )
    message = f"{artifact.file} is slower than {rival} on {slow[0][0].device} ({figures})"
    return Warned(kind="slower", about=artifact.file, message=f"{message}: {why}")


_OTHER_PRECISIONS = {
    "fp16": "float16 weights are widened to float32 when the file is loaded: they save bytes, not time",
    "int8-dynamic": "every inference quantises its activations anew, which small layers don't earn back",
    "int16x8": "int16 activations run in LiteRT's reference kernels, which are slow on CPUs",
}


def _why_slower(artifact: Artifact, rival_macs: int, dot_products: bool | None) -> str:
    if why := FORMATS[artifact.format].why_slower(artifact.precision):
        return why
    if artifact.precision in _OTHER_PRECISIONS:
        return _OTHER_PRECISIONS[artifact.precision]
    if artifact.precision == "fp32":
        kernels = f"the float kernels of {FORMATS[artifact.format].runtime}"
        if artifact.macs >= rival_macs:
            return f"as many MACs, and {kernels} are slower at these shapes"
        return f"it has {rival_macs / artifact.macs:.2f}× fewer MACs, but {kernels} don't turn that into time"
    if artifact.int8_coverage is not None and artifact.int8_coverage < 1:
        return f"{human_share(1 - artifact.int8_coverage, 0)} of its MACs run in float: {_layers(artifact)}"
    island = artifact.float_time_share or 0.0
    if island > _ISLANDS:
        kernels = ", ".join(artifact.float_kernels[:_NAMED])
        return (
            f"{human_share(island, 0)} of the time in its kernels goes into float islands and the way "
            f"in and out of them ({kernels}), which cost more than integer kernels save elsewhere"
        )
    if artifact.outside:
        ops = ", ".join(f"{count} {kind}" for kind, count in list(artifact.outside.items())[:_NAMED])
        return (
            f"{FORMATS[artifact.format].runtime} executes {ops} in its plain kernels, between "
            f"{artifact.partitions} partition{'' if artifact.partitions == 1 else 's'} of fast ones"
        )
    if dot_products is False:
        return "this CPU has no int8 dot products (VNNI), so int8 brings little"
    return (
        "all its MACs run in integer kernels, so the time goes into what stands around them: rescaling "
        "between layers, and the start of each kernel, which weighs most in small models"
    )


def _larger(artifacts: Sequence[Artifact], reference: str) -> Iterator[Warned]:
    original = next((one.size_bytes for one in artifacts if one.file == reference), None)
    for one in artifacts:
        if original is not None and one.size_bytes > _LARGER * original:
            message = f"{one.file} is larger than the original: {human_bytes(one.size_bytes)} against "
            message += human_bytes(original)
            yield Warned(kind="larger", about=one.file, message=message)


def _threads(one: Measured) -> str:
    return f"{one.threads} thread" + ("" if one.threads == 1 else "s")
