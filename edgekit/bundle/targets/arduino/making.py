"""A bundle's files: an Arduino library, whose plain C parts compile anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import guarded
from edgekit.bundle import c_detection, c_keypoints, c_sounds, common, names
from edgekit.bundle.contents import Contents
from edgekit.bundle.targets.arduino import memory, surroundings
from edgekit.bundle.targets.arduino.literals import array
from edgekit.bundle.targets.arduino.memory import Needs, Road
from edgekit.bundle.targets.arduino.plain_c import PlainC, plain_c
from edgekit.bundle.targets.base import Files, Settings
from edgekit.bundle.templates import render
from edgekit.bundle.words import sound_values, state_words
from edgekit.errors import ExportError, MissingExtraError
from edgekit.formats.litert import reading, tflm
from edgekit.formats.litert.tflm_ops import cmsis_nn_scratch, resolver_methods
from edgekit.scratch import scratch

__all__ = ["HOST", "MODEL", "files", "sources"]

HOST = "extras/host"  # what is compiled on a computer
GOLDEN = "extras/golden/"
MODEL = "extras/model/"
_TEMPLATES = Path(__file__).with_name("templates")
_GOLDEN_SHARE = 10  # golden samples take at most a tenth of a device's flash


@dataclass(frozen=True)
class _Looked:
    """What the model file itself says: methods of the resolver, arena, plain C."""

    methods: tuple[str, ...]
    arena: int
    margin: int
    c: PlainC | None
    why_no_c: str


def files(contents: Contents, settings: Settings) -> Files:
    """All files of the bundle.

    Raises:
        MissingExtraError: tflite-micro isn't installed.
        ExportError: TFLM lacks an op of the model, refuses it, or the model doesn't fit the device.
    """
    tflm.require()
    looked = _look(contents)
    needs = _needs(contents, looked, settings)
    warnings = memory.check(needs, settings.device) if settings.device is not None else ()
    return sources(contents, looked, needs, warnings, device=settings.device.name if settings.device else "")


def sources(
    contents: Contents, looked: _Looked, needs: Needs, warnings: tuple[str, ...], *, device: str
) -> Files:
    """The same from what is known of the model."""
    id = names.identifier(contents.name)
    values = _values(contents, id, looked, needs, warnings, device)
    made = {
        "library.properties": "library.properties",
        f"{HOST}/Makefile": "Makefile",
        f"src/{id}_ops.h": "ops.h",
        **{f"src/{id}_model_data.{suffix}": f"model_data.{suffix}" for suffix in ("h", "c")},
    }
    # Those that several inputs or outputs change throughout have a template of their own.
    ends = {
        "README.md": "README.md",
        f"src/{id}.h": "umbrella.h",
        "examples/SelfTest/SelfTest.ino": "SelfTest.ino",
        f"{HOST}/host.h": "host.h",
        f"{HOST}/check.c": "check.c",
        f"src/{id}_config.h": "config.h",
    }
    for part in ("golden", "self_test"):
        ends |= {f"src/{id}_{part}.{suffix}": f"{part}.{suffix}" for suffix in ("h", "c")}
    if looked.c is not None:
        ends |= {"examples/SelfTestC99/SelfTestC99.ino": "SelfTestC99.ino", f"{HOST}/predict.c": "predict.c"}
    made |= {path: _of(template, contents) for path, template in ends.items()}
    found = {path: render(_TEMPLATES, f"{template}.j2", **values) for path, template in made.items()}
    for part, each in (("preprocess", values["inputs"]), ("postprocess", values["outputs"])):
        for one in each:
            for suffix in ("h", "c"):
                path = f"src/{one['id']}_{part}.{suffix}"
                found[path] = render(_TEMPLATES, f"{part}.{suffix}.j2", **{**values, **one})
    if looked.c is not None:
        found[f"src/{looked.c.prefix}.h"] = looked.c.header.encode()
        found[f"src/{looked.c.prefix}.c"] = looked.c.source.encode()
    # The name of the file in the run may be anything; here it is the identifier's.
    named = replace(contents, model=replace(contents.model, name=f"{id}.tflite"))
    found[f"{MODEL}{named.model.name}"] = contents.model.content
    if contents.detection is not None:
        found[f"src/{id}_detection.h"] = c_detection.header(contents, id, real=False)
    if contents.sound is not None:
        found[f"src/{id}_sound.h"] = c_sounds.header(contents, id, real="float")
        found[f"{HOST}/sounds.c"] = render(_TEMPLATES, "sounds.c.j2", **values)
    if contents.keypoints is not None:
        found[f"src/{id}_keypoints.h"] = c_keypoints.header(contents, id, real=False)
    return found | common.spec_file(named) | common.golden_files(contents, GOLDEN)


def _of(template: str, contents: Contents) -> str:
    stem, suffix = template.rsplit(".", 1)
    return f"{stem}_named.{suffix}" if contents.several else template


def _look(contents: Contents) -> _Looked:
    with scratch() as folder_here:
        path = Path(folder_here) / "model.tflite"
        path.write_bytes(contents.model.content)
        described = _described(path)
        methods = resolver_methods(described["operators"])
        c, why = plain_c(path, f"{names.identifier(contents.name)}_c99")
        arena = tflm.arena_bytes(path, at_least=described["arena"]["bytes"])
        scratch_bytes = cmsis_nn_scratch(described)
    return _Looked(methods, arena, -(-scratch_bytes // tflm.ALIGNMENT) * tflm.ALIGNMENT, c, why)


def _described(path: Path) -> dict[str, Any]:
    try:
        import ai_edge_litert  # noqa: F401  # whose schema reads the file
    except ImportError:
        raise MissingExtraError(
            "what is in a LiteRT file is read with ai-edge-litert",
            where="target arduino",
            got="not installed",
            next="pip install 'edgekit-toolkit[litert]'",
        ) from None
    described: dict[str, Any] = guarded.call(
        reading.describe, str(path), what="this file can't be read", where=path.name
    )
    return described


# --- memory ----------------------------------------------------------------------------------------------


def _needs(contents: Contents, looked: _Looked, settings: Settings) -> Needs:
    device = settings.device
    raw = sum(one.raw.size * np.dtype(one.raw.dtype).itemsize for one in contents.inputs)
    count = _golden_samples(contents, device.flash_bytes if device is not None else None)
    shared = {
        "tables and labels": surroundings.table_bytes(contents) + _label_bytes(contents),
        f"{count} golden samples": count * surroundings.golden_bytes(contents),
    }
    tflm = Road(
        "TFLM",
        {"arena": looked.arena + looked.margin, "one raw sample": raw},
        {"model": len(contents.model.content), **shared},
    )
    roads = [tflm]
    if looked.c is not None:
        ram = {
            "arena": looked.c.arena_bytes,
            "input": sum(one.end.bytes for one in contents.inputs),
            "output": sum(one.end.bytes for one in contents.outputs),
            "one raw sample": raw,
        }
        roads.append(Road("C99", ram, {"weights and parameters": looked.c.constant_bytes, **shared}))
    return Needs(tuple(roads), looked.arena, count)


def _golden_samples(contents: Contents, flash: int | None) -> int:
    most = min(surroundings.GOLDEN_MOST, contents.golden_samples)
    if flash is not None:
        most = min(most, flash // _GOLDEN_SHARE // surroundings.golden_bytes(contents))
    if not contents.golden_samples:
        raise ExportError("a bundle needs golden samples", got="none", expected="at least 1")
    return max(1, most)


def _label_bytes(contents: Contents) -> int:
    """With the zero behind each, a pointer and a length of 4 bytes."""
    described = map(surroundings.postprocessing, contents.outputs)
    return sum(size + 9 for one in described if one["classes"] for size in one["label_bytes"])


# --- values for the templates ----------------------------------------------------------------------------


def _values(
    contents: Contents, id: str, looked: _Looked, needs: Needs, warnings: tuple[str, ...], device: str
) -> Mapping[str, Any]:
    content = np.frombuffer(contents.model.content, np.uint8)
    count = needs.golden_samples
    given = [
        {
            **surroundings.input_values(one, count),
            **_called(contents, id, own),
            "name": names.comment(one.end.name),
        }
        for one, own in zip(contents.inputs, contents.input_ids, strict=True)
    ]
    made = [
        {
            **surroundings.output_values(one, count),
            **_called(contents, id, own),
            "name": names.comment(one.end.name),
        }
        for one, own in zip(contents.outputs, contents.output_ids, strict=True)
    ]
    return {
        **({} if contents.several else {**given[0], **made[0]}),
        "several": contents.several,
        "states": state_words(contents),
        **sound_values(contents),
        "inputs": given,
        "outputs": made,
        "id": id,
        "ID": id.upper(),
        "Id": names.pascal_case(contents.name),
        "config": f"{id}_config",
        "title": contents.name,
        "version": contents.version,
        "edgekit_version": contents.edgekit_version,
        "model_name": contents.model.name,
        "model_bytes": len(content),
        "model_data": array(content),
        "methods": looked.methods,
        "arena_bytes": looked.arena + looked.margin,
        "arena_measured": looked.arena,
        "arena_margin": looked.margin,
        "c99": looked.c,
        "why_no_c99": looked.why_no_c,
        "needs": needs,
        "parts": {kind: _parts(needs, kind) for kind in ("ram", "flash")},
        "host": HOST,
        "golden_folder": GOLDEN,
        "golden_all": contents.golden_samples,
        "golden_samples": count,
        "warnings": warnings,
        "device": device,
        "accuracy": contents.accuracy,
        "metric": contents.task["metric"],
        "runtime_bytes": memory.RUNTIME_BYTES,
    }


def _called(contents: Contents, id: str, own: str) -> dict[str, str]:
    """What all names of an end's code begin with; ``member``: its own name."""
    prefix = f"{id}_{own.rstrip('_')}" if contents.several else id
    return {"id": prefix, "ID": prefix.upper(), "member": own}


def _parts(needs: Needs, kind: str) -> list[str]:
    """What memory goes to on any road, in order."""
    return list(dict.fromkeys(part for road in needs.roads for part in getattr(road, kind)))
