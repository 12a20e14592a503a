"""What every fine-tuning can be told: optimizer, schedule, distillation.

This file needs no torch, so that a recipe can be read and checked in an instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = [
    "Config",
    "DistillationConfig",
    "EarlyStoppingConfig",
    "FeaturesConfig",
    "TrainingConfig",
    "over_defaults",
]


class Config(BaseModel):
    """Base of all configuration: frozen, unknown keys refused, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def over_defaults(model: type[BaseModel], data: Mapping[Any, Any]) -> dict[Any, Any]:
    """``data`` for ``model``, completed where a field's default is a configuration itself.

    A mapping given there changes what it names and nothing else: ``training: {epochs: 6}`` keeps the learning
    rate that the stage has by default, which needn't be that of ``TrainingConfig``.
    """
    whole = dict(data)
    for name, field in model.model_fields.items():
        given = whole.get(name)
        if isinstance(given, Mapping) and (inner := _config_in(field.annotation)) is not None:
            usual = {}
            if isinstance(field.default, Config):
                usual = field.default.model_dump(mode="json", exclude_unset=True)
            whole[name] = over_defaults(inner, _over(usual, given))
    return whole


def _config_in(annotation: Any) -> type[Config] | None:
    """The configuration that a field holds, or may hold."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, Config)), None)


def _over(usual: Mapping[str, Any], given: Mapping[Any, Any]) -> dict[Any, Any]:
    """``given`` over ``usual``, mapping by mapping."""
    both = [key for key in given if isinstance(given[key], Mapping) and isinstance(usual.get(key), Mapping)]
    return {**usual, **given, **{key: _over(usual[key], given[key]) for key in both}}


class FeaturesConfig(Config):
    """What the student is told beside the answers: feature maps inside. docs/distillation.md."""

    kind: Literal["hint", "attention"]
    weight: float = Field(1.0, gt=0, le=10_000)  # added to the rest of the loss with this factor
    # [[student's layer, teacher's layer], …]; auto: the last ones of each resolution that both have
    layers: Literal["auto"] | tuple[tuple[str, str], ...] = "auto"

    @field_validator("layers", mode="before")
    @classmethod
    def _layers_are_pairs(cls, layers: Any) -> Any:
        pairs = isinstance(layers, (list, tuple)) and all(
            isinstance(pair, (list, tuple)) and [type(name) for name in pair] == [str, str] for pair in layers
        )
        if layers != "auto" and not (pairs and layers):
            raise ValueError("must be \"auto\" or pairs of names, [[student's, teacher's], …]")
        # Strict checking takes no list for a tuple once a value has been through here.
        return layers if layers == "auto" else tuple(tuple(pair) for pair in layers)


class DistillationConfig(Config):
    """How the teacher enters the loss: ``(1 - weight) * task loss + weight * distillation loss + features``.

    Training data without labels: the distillation loss alone, whatever ``weight`` is.
    """

    # Of class scores. For numbers every loss but "none" is what ``continuous`` says.
    loss: Literal["standardized", "classical", "dkd", "dist", "none"] = "standardized"
    temperature: float = Field(2.0, gt=0, le=100)
    weight: float = Field(0.9, ge=0, le=1)
    dkd_alpha: float = Field(1.0, ge=0, le=100)  # the target class
    dkd_beta: float = Field(8.0, ge=0, le=100)  # the other classes among each other
    dist_inter: float = Field(1.0, ge=0, le=100)  # relations between the classes of a sample
    dist_intra: float = Field(1.0, ge=0, le=100)  # relations between the samples of a class
    continuous: Literal["mse", "bounded"] = "mse"  # bounded: only where the student is worse than the teacher
    margin: float = Field(0.0, ge=0)  # with bounded, squared error
    features: FeaturesConfig | None = None


class EarlyStoppingConfig(Config):
    """Stop when a held-out share of the *training* data gets no better; the best epoch's weights are kept.

    The held-out samples are the same for every stage of one seed, and none of them is trained on.
    """

    patience: int = Field(5, ge=1, le=10_000)  # epochs without a better score
    held_out: float = Field(0.1, gt=0, le=0.5)  # share of the training samples
    min_delta: float = Field(0.0, ge=0, le=1)  # a better score is one that is more than this higher


class TrainingConfig(Config):
    """One fine-tuning: the same loop serves distilling, recovering after pruning, and QAT."""

    epochs: int = Field(10, ge=0, le=10_000)
    # auto: 128, smaller for few samples; lr is meant for 128 and follows it (training/sizing.py)
    batch_size: Annotated[int, Field(ge=2, le=65_536)] | Literal["auto"] = "auto"
    # Epochs are raised, to four times at most, until the training has so many steps; 0: as they are written.
    min_steps: int = Field(0, ge=0, le=1_000_000)
    # Where a stage trains: held-out training data compare the end with the start, and the better one is kept.
    floor: bool = True
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0, le=10)] | Literal["auto"] = 0.02  # "auto": found by a range test
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0, le=1)
    warmup_epochs: float = Field(0.5, ge=0)  # linear from 0 to lr; one_cycle has a rise of its own
    ema_decay: float | None = Field(None, gt=0, lt=1)  # 0.999: the averaged weights are what is kept
    early_stopping: EarlyStoppingConfig | None = None
    class_weights: Literal["none", "balanced"] = "none"  # balanced: rare classes count as much as common ones
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    gradient_clip: float | None = Field(5.0, gt=0)  # global norm
    distillation: DistillationConfig = DistillationConfig()
    device: Literal["cpu", "cuda"] = "cpu"  # cuda: an NVIDIA GPU, one for each process
    # Of the arithmetic; auto: what is faster on the device.
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: Literal["auto", "always", "never"] = "auto"  # torch.compile; auto: tried in long trainings
    cuda_graphs: Literal["auto", "never"] = "auto"  # on a GPU, auto: where replaying is faster
    mixup: float = Field(0.0, ge=0, le=10)  # alpha of the Beta distribution; 0: off
    cutmix: float = Field(0.0, ge=0, le=10)  # likewise; with both, half of the batches each
