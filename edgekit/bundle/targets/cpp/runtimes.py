"""Where the runtimes for C++ are on this machine: folders that the generated CMake takes as roots."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from edgekit.caching import cache_folder

__all__ = ["VARIABLES", "headers_folder", "link_onnxruntime", "runtime_root"]

# What CMake calls the root of each runtime; edgekit takes it from EDGEKIT_… in the environment.
VARIABLES = {"litert": "LITERT_ROOT", "onnxruntime": "ONNXRUNTIME_ROOT"}
_SYSTEM = Path("/usr/include/onnxruntime/onnxruntime_c_api.h")


def runtime_root(runtime: str, scratch: Path) -> tuple[Path | None, str]:
    """Its root, or None and why there is none.

    Looked for in the environment ($EDGEKIT_LITERT_ROOT, $EDGEKIT_ONNXRUNTIME_ROOT), then in the installed
    Python packages, with ONNX Runtime's header out of edgekit's cache or the system. ``scratch`` gets links.
    """
    variable = f"EDGEKIT_{VARIABLES[runtime]}"
    if named := os.environ.get(variable):
        return Path(named), ""
    package = {"litert": "ai_edge_litert", "onnxruntime": "onnxruntime"}[runtime]
    found = importlib.util.find_spec(package)
    folder = Path(found.origin).parent if found and found.origin else None
    if runtime == "litert":
        if folder is None or not any(folder.glob("libLiteRt.*")):
            return None, f"no libLiteRt: pip install ai-edge-litert, or set {variable}"
        return folder, ""
    headers = headers_folder()
    if headers is None:
        return None, f"no onnxruntime_c_api.h: install libonnxruntime-dev, or set {variable}"
    root = None if folder is None else link_onnxruntime(folder / "capi", headers, scratch)
    return root, "" if root else f"no libonnxruntime: pip install onnxruntime, or set {variable}"


def headers_folder() -> Path | None:
    """With ``onnxruntime_c_api.h``: what was fetched into the cache, or the system's."""
    fetched = sorted(cache_folder().glob("cpp/onnxruntime-headers*/onnxruntime_c_api.h"))
    known = [*fetched, _SYSTEM]
    return next((header.parent for header in known if header.is_file()), None)


def link_onnxruntime(library_folder: Path, headers: Path, scratch: Path) -> Path | None:
    """A root of links to a wheel's library, which lacks the names that a linker looks for."""
    libraries = sorted(library_folder.glob("libonnxruntime.so.*"))
    if not libraries:
        return None
    root = scratch / "onnxruntime"
    (root / "lib").mkdir(parents=True, exist_ok=True)
    for link, to in (
        (root / "include", headers),
        (root / "lib" / "libonnxruntime.so.1", libraries[-1]),
        (root / "lib" / "libonnxruntime.so", libraries[-1]),
    ):
        link.unlink(missing_ok=True)
        link.symlink_to(to)
    return root
