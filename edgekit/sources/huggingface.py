"""``hf:FOLDER``: a classifier of transformers, from the folder that ``save_pretrained`` writes.

Offline: ``hf:OWNER/NAME`` is fetched only where that is asked for. Weights are safetensors, or plain tensors;
code in a folder is never run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import EdgekitError, WeightsError, WorkloadError
from edgekit.files import inside, read_json, what_is
from edgekit.pictures.transform import ImageTransform
from edgekit.sounds.transform import SoundTransform
from edgekit.sources.base import ModelSource, imported
from edgekit.sources.heads import put, tell_new
from edgekit.sources.sizes import check_built, check_sizes
from edgekit.weights import read_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["HuggingFace"]

_FETCHED = ["*.json", "*.safetensors", "*.txt", "*.model"]
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_INDEX = "model.safetensors.index.json"
_WORDS = {
    "AutoModelForImageClassification": "image",
    "AutoModelForAudioClassification": "audio",
    "AutoModelForSequenceClassification": "text",
}
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's number
# Processors whose size is that of the shortest side, where it is one number.
_SHORTEST = re.compile("ConvN|PoolFormer|Levit|MobileViT|MobileNet", re.IGNORECASE)


def _package() -> Any:
    def load() -> Any:
        import transformers

        return transformers

    return imported("hf:", load)


# Kinds of data, by what the class that was saved is called; the first that fits counts.
_KINDS = {
    "ForImageClassification": ("pictures", "AutoModelForImageClassification"),
    "ForAudioClassification": ("sounds", "AutoModelForAudioClassification"),
    "ForSequenceClassification": ("texts", "AutoModelForSequenceClassification"),
}
# Models of sounds whose classifiers are called "ForSequenceClassification".
_OF_SOUNDS = ("wav2vec2", "hubert", "wavlm", "unispeech", "sew", "data2vec-audio")
_SHIFTED = ("roberta", "camembert", "xlm", "mpnet", "longformer")  # positions count on from the padding's id
_UNLIMITED = 1 << 20  # tokens: a tokeniser that knows no limit says more
_LENGTH = 512
_DIGITS = 9


class HuggingFace(ModelSource):
    """What it says about pictures and sounds is in ``preprocessor_config.json``, about texts in its
    tokeniser.
    """

    outputs = ("logits",)
    brings_weights = True

    def build(self, name: str, num_classes: int | None, *, pretrained: bool) -> nn.Module:
        folder = _folder(name, pretrained=pretrained)
        described = _json(folder / "config.json")
        kind_name = _kind(described, folder)[1]
        if "auto_map" in described:
            raise WorkloadError(
                "this model is code that came with its weights, which edgekit never runs",
                where=str(folder / "config.json"),
                got="auto_map",
                next="copy that code into a file of your own if you trust it: net.py:function",
            )
        _refuse_elsewhere(described, folder / "config.json")
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
            kind = imported("hf:", lambda: getattr(transformers, kind_name))
            check_built(lambda: kind.from_config(config, trust_remote_code=False), tensors, folder)
            if weights[0].suffix != ".safetensors":
                model: nn.Module = kind.from_config(config, trust_remote_code=False)
            else:
                model, told = _loaded(transformers, kind, folder, config)
        except EdgekitError:
            raise
        except Exception as error:  # a configuration may send transformers' code anywhere
            raise WorkloadError(
                f"no {_WORDS[kind_name]} classifier of transformers",
                where=str(folder / "config.json"),
                got=" ".join(str(error).split())[:300],
                expected="the config.json of one, such as ViTForImageClassification or "
                "BertForSequenceClassification",
            ) from error
        if weights[0].suffix != ".safetensors":
            put(model, tensors, str(weights[0]))
        else:
            _tell_head(told, str(folder), config.num_labels, str(getattr(model, "base_model_prefix", "")))
        return model

    def kinds(self, name: str) -> tuple[str, ...]:
        if not Path(name).is_dir():
            return ("pictures", "texts", "sounds")  # it is fetched, or its absence told, when it is built
        return (_kind(_json(Path(name) / "config.json"), Path(name))[0],)

    def kind_of(self, name: str, model: nn.Module) -> str:
        config = getattr(model, "config", None)
        return _kind(config.to_dict(), Path(name))[0] if config is not None else "pictures"

    def classes(self, name: str) -> tuple[str, ...] | None:
        if not Path(name).is_dir():
            return None
        labels = _json(Path(name) / "config.json").get("id2label")
        if not isinstance(labels, dict) or not all(
            str(key).isdecimal() and len(str(key)) < _DIGITS for key in labels
        ):
            return None
        found = tuple(str(labels[key]) for key in sorted(labels, key=int))
        return (
            None if any(one.startswith("LABEL_") for one in found) or len(set(found)) < len(found) else found
        )

    def text(self, name: str, model: nn.Module) -> tuple[str, int]:
        from edgekit.texts.transform import loaded

        folder = str(_folder(name, pretrained=True))
        config = getattr(model, "config", None)
        longest = getattr(config, "max_position_embeddings", None)
        longest = longest if isinstance(longest, int) and longest > 0 else _LENGTH
        if str(getattr(config, "model_type", "")).startswith(_SHIFTED):
            longest -= (getattr(config, "pad_token_id", None) or 0) + 1
        own = int(min(loaded(folder).model_max_length, _UNLIMITED))
        return folder, min(longest, own) if own < _UNLIMITED else longest

    def sound(self, name: str, model: nn.Module) -> tuple[SoundTransform | None, bool]:
        path = Path(name) / "preprocessor_config.json"
        told = _json(path) if path.exists() else {}
        kind = str(told.get("feature_extractor_type", "Wav2Vec2FeatureExtractor"))
        if kind != "Wav2Vec2FeatureExtractor":
            raise WorkloadError(
                "features of a kind that edgekit doesn't compute",
                where=str(path),
                got=kind,
                expected="Wav2Vec2FeatureExtractor: samples as they are",
                next="compute them in a workload file of your own",
            )
        normalize = bool(told.get("do_normalize", True))
        return SoundTransform(rate=told.get("sampling_rate", 16_000), bands=0, normalize=normalize), False

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
        if (Path(name) / "preprocessor_config.json").exists() or "pictures" not in self.kinds(name):
            return []
        return [f"{name} has no preprocessor_config.json: mean and std are those of ImageNet"]


def _kind(described: dict[str, Any], folder: Path) -> tuple[str, str]:
    """The kind of data, and the class that builds such models. Raises WorkloadError: another task."""
    names = described.get("architectures")
    names = [one for one in names if isinstance(one, str)] if isinstance(names, list) else []
    if not names:
        return _KINDS["ForImageClassification"]  # by the type of the model, which may be no such
    for ending, kind in _KINDS.items():
        if any(one.endswith(ending) for one in names):
            sounds = str(described.get("model_type", "")).startswith(_OF_SOUNDS)
            return _KINDS["ForAudioClassification"] if sounds else kind
    if any(str(described.get("model_type", "")).startswith(one) for one in ("bert", "distilbert", "roberta")):
        return _KINDS["ForSequenceClassification"]  # of another task: all but its head is taken
    return _KINDS["ForImageClassification"]


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


def _tell_head(told: dict[str, Any], where: str, classes: int, base: str) -> None:
    """A head of other classes is new, which is told. Raises WeightsError: more than the head is missing."""
    other = {str(one[0]): int(one[1][0]) for one in told.get("mismatched_keys", ()) if len(one[1])}
    missing = sorted(map(str, told.get("missing_keys", ())))
    # What the body of the network has for heads alone (BERT's pooler) belongs to them.
    body = [
        name for name in (*other, *missing) if base and name.startswith(f"{base}.") and ".pooler." not in name
    ]
    owners = {name.rpartition(".")[0] for name in (*other, *missing)}
    if body or (not base and len(owners) > 1):
        raise WeightsError(
            "the weights don't fit the model",
            where=where,
            got=f"{len(other)} of another shape, {len(missing)} missing: {', '.join([*other, *missing][:5])}",
            expected="all but the head",
        )
    if owners:
        tell_new(where, next(iter(other.values()), None), classes)


def _refuse_elsewhere(described: dict[str, Any], where: Path) -> None:
    """Raise WorkloadError for what transformers would fetch, compile or ask other packages for."""
    asked = {str(described.get(key)) for key in ("attn_implementation", "_attn_implementation")}
    found = sorted(asked - {"None", "eager", "sdpa"})
    if str(described.get("architecture", "")).startswith(("hf-hub:", "hf_hub:", "local-dir:")):
        found.append(str(described["architecture"]))
    if described.get("quantization_config") is not None:
        found.append("quantization_config")
    if found:
        raise WorkloadError(
            "this configuration wants code or weights from elsewhere",
            where=str(where),
            got=", ".join(found)[:200],
            expected="a plain model: attention that is eager or sdpa, weights that aren't quantised",
            next="take that key out of config.json, or save the model without it",
        )


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
    if isinstance(size, int) and (told.get("crop_pct") or _SHORTEST.search(_processor(told))):
        size = {"shortest_edge": size}  # as older files say it
    crop = _sides(told.get("crop_size", size)) if told.get("do_center_crop") else None
    shortest = size if isinstance(size, int) else dict(size).get("shortest_edge")
    if shortest is not None and isinstance(size, dict):
        # ConvNeXt's: pictures of less than 384 are cut out of larger ones, others are stretched.
        if told.get("crop_pct") and shortest >= 384 and crop is None:
            return ImageTransform(size=(shortest, shortest), fit="stretch", **more)
        if told.get("crop_pct") and crop is None:
            return ImageTransform(size=(shortest, shortest), resize=int(shortest / told["crop_pct"]), **more)
        crop = crop or (shortest, shortest)
        return ImageTransform(size=crop, resize=max(shortest, *crop), **more)
    whole = _sides(size)
    return ImageTransform(size=crop or whole, resize=whole, fit="stretch", **more)


def _processor(told: dict[str, Any]) -> str:
    return f"{told.get('image_processor_type')} {told.get('feature_extractor_type')}"


def _sides(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        one = int(size.get("shortest_edge", 224))
        return int(size.get("height") or one), int(size.get("width") or one)
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))
