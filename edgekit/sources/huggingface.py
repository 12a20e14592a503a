"""``hf:FOLDER``: an image classifier of transformers, from the folder that ``save_pretrained`` writes.

Offline: ``hf:OWNER/NAME`` is fetched only where that is asked for. Weights are safetensors, or plain tensors;
code in a folder is never run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import EdgekitError, WeightsError, WorkloadError
from edgekit.files import inside, read_json, what_is
from edgekit.pictures.transform import ImageTransform
from edgekit.sources.base import ModelSource, imported
from edgekit.sources.heads import put, tell_new
from edgekit.sources.sizes import check_built, check_sizes
from edgekit.weights import read_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["HuggingFace"]

_FETCHED = ["*.json", "*.safetensors", "*.txt"]
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_INDEX = "model.safetensors.index.json"
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's number


def _package() -> Any:
    def load() -> Any:
        import transformers

        return transformers

    return imported("hf:", load)


class HuggingFace(ModelSource):
    """What it says about pictures is in ``preprocessor_config.json``."""

    outputs = ("logits",)
    brings_weights = True

    def build(self, name: str, num_classes: int | None, *, pretrained: bool) -> nn.Module:
        folder = _folder(name, pretrained=pretrained)
        described = _json(folder / "config.json")
        if "auto_map" in described:
            raise WorkloadError(
                "this model is code that came with its weights, which edgekit never runs",
                where=str(folder / "config.json"),
                got="auto_map",
                next="copy that code into a file of your own if you trust it: net.py:function",
            )
        transformers = _package()
        weights, tensors = _files(folder)
        check_sizes(described, tensors, folder / "config.json")
        try:
            # config.json alone: what is named there is looked up in transformers' own table.
            config = transformers.AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            if num_classes is not None and config.num_labels != num_classes:
                config.num_labels = num_classes
            kind = imported("hf:", lambda: transformers.AutoModelForImageClassification)
            check_built(lambda: kind.from_config(config, trust_remote_code=False), tensors, folder)
            if weights[0].suffix != ".safetensors":
                model: nn.Module = kind.from_config(config, trust_remote_code=False)
            else:
                model, told = _loaded(transformers, kind, folder, config)
        except EdgekitError:
            raise
        except Exception as error:  # a configuration may send transformers' code anywhere
            raise WorkloadError(
                "no image classifier of transformers",
                where=str(folder / "config.json"),
                got=" ".join(str(error).split())[:300],
                expected="the config.json of one, such as ViTForImageClassification",
            ) from error
        if weights[0].suffix != ".safetensors":
            put(model, tensors, str(weights[0]))
        else:
            _tell_head(told, str(folder), config.num_labels)
        return model

    def transform(self, name: str, model: nn.Module) -> ImageTransform:
        path = Path(name) / "preprocessor_config.json"
        config = getattr(model, "config", None)
        size = getattr(config, "image_size", 224)
        own = size if isinstance(size, int) else 224
        told = _json(path) if path.exists() else {}
        try:
            return transform_of(told, own)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            raise WorkloadError(
                "this doesn't say what the model wants of pictures",
                where=str(path),
                got=" ".join(str(error).split())[:300],
                expected="what transformers' image processors write: sizes, mean and std",
            ) from error

    def short(self, name: str) -> str:
        return Path(name).resolve().name

    def told(self, name: str) -> list[str]:
        if (Path(name) / "preprocessor_config.json").exists():
            return []
        return [f"{name} has no preprocessor_config.json: mean and std are those of ImageNet"]


def _folder(name: str, *, pretrained: bool) -> Path:
    """The local folder; fetched only if that is asked for."""
    path = Path(name)
    if path.is_dir():
        return path
    hub = name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.exists()
    if hub and pretrained:
        try:
            from huggingface_hub import snapshot_download

            return Path(snapshot_download(name, allow_patterns=_FETCHED))
        except Exception as error:  # whatever a network and a hub end in
            raise WeightsError(
                "the model couldn't be fetched",
                where=f"hf:{name}",
                got=" ".join(str(error).split())[:300],
                next=_by_hand(name),
            ) from error
    raise WorkloadError(
        "no such folder",
        where=f"hf:{name}",
        got=what_is(path),
        expected="a folder with config.json and model.safetensors",
        next=f"--pretrained fetches it from the hub; or {_by_hand(name)}" if hub else "",
    )


def _by_hand(name: str) -> str:
    short = name.rpartition("/")[2]
    return (
        f"where there is a network: hf download {name} --local-dir {short}; then name the folder: hf:{short}"
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise WorkloadError(
            "this file can't be read",
            where=str(path),
            got=what_is(path) if not path.is_file() else str(error),
            expected="what transformers' save_pretrained writes",
        ) from error
    if not isinstance(found, dict):
        raise WorkloadError("no JSON object", where=str(path), got=type(found).__name__)
    return found


def _files(folder: Path) -> tuple[list[Path], dict[str, Tensor]]:
    """The files of its weights and what is in them: plain tensors, all finite. Raises WeightsError."""
    index = folder / _INDEX
    files = [next((folder / name for name in _WEIGHTS if (folder / name).exists()), folder / _WEIGHTS[0])]
    if index.exists():
        told = _json(index).get("weight_map")
        try:
            files = [inside(folder, str(file)) for file in sorted(set(dict(told or {}).values()))]
        except (ValueError, TypeError) as error:
            raise WeightsError(
                "an index that names no files beside it", where=str(index), got=str(error)
            ) from error
    tensors = {name: one for file in files for name, one in read_weights(file).items()}
    if not files or (len(files) > 1 and {one.suffix for one in files} != {".safetensors"}):
        raise WeightsError("an index of no weights", where=str(index), expected="safetensors beside it")
    return files, tensors


def _loaded(transformers: Any, kind: Any, folder: Path, config: Any) -> tuple[nn.Module, dict[str, Any]]:
    """By transformers, which knows the names that older ones gave; from safetensors alone."""
    import torch

    transformers.utils.logging.disable_progress_bar()
    loaded: tuple[nn.Module, dict[str, Any]] = kind.from_pretrained(
        folder,
        config=config,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        dtype=torch.float32,
    )
    return loaded


def _tell_head(told: dict[str, Any], where: str, classes: int) -> None:
    """A head of other classes is new, which is told. Raises WeightsError: more than the head is missing."""
    other = {str(one[0]): int(one[1][0]) for one in told.get("mismatched_keys", ()) if len(one[1])}
    missing = sorted(map(str, told.get("missing_keys", ())))
    owners = {name.rpartition(".")[0] for name in (*other, *missing)}
    if len(owners) > 1:
        raise WeightsError(
            "the weights don't fit the model",
            where=where,
            got=f"{len(other)} of another shape, {len(missing)} missing: {', '.join([*other, *missing][:5])}",
            expected="all but the head",
        )
    if owners:
        tell_new(where, next(iter(other.values()), None), classes)


def transform_of(told: dict[str, Any], own: int) -> ImageTransform:
    """From an image processor's configuration. ``own``: the size that the model has by its own."""
    size = told.get("size", own)
    interpolation = _RESAMPLE[told["resample"]] if told.get("resample") in range(6) else "bilinear"
    more: dict[str, Any] = {"interpolation": interpolation}
    for key in ("mean", "std"):
        if told.get("do_normalize", True) and told.get(f"image_{key}"):
            more[key] = tuple(map(float, told[f"image_{key}"]))
        elif not told.get("do_normalize", True):
            more[key] = (0.0,) if key == "mean" else (1.0,)
    if told.get("do_rescale", True):
        more["scale"] = float(told.get("rescale_factor", 1 / 255))
    else:
        more["scale"] = 1.0
    crop = _sides(told.get("crop_size", size)) if told.get("do_center_crop") else None
    shortest = size if isinstance(size, int) else dict(size).get("shortest_edge")
    if shortest is not None and isinstance(size, dict):
        # ConvNeXt's: pictures of less than 384 are cut out of larger ones.
        if told.get("crop_pct") and shortest < 384 and crop is None:
            return ImageTransform(size=(shortest, shortest), resize=int(shortest / told["crop_pct"]), **more)
        crop = crop or (shortest, shortest)
        return ImageTransform(size=crop, resize=max(shortest, *crop), **more)
    whole = _sides(size)
    return ImageTransform(size=crop or whole, resize=whole, fit="stretch", **more)


def _sides(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        one = int(size.get("shortest_edge", 224))
        return int(size.get("height") or one), int(size.get("width") or one)
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))
