"""What is compressed: a trained model with its data, task and preprocessing."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.batching import batch_size
from edgekit.errors import DataError, WorkloadError
from edgekit.execution import Forward, mode, spans
from edgekit.leaves import detach_kept
from edgekit.tasks import Task
from edgekit.workload import answering
from edgekit.workload.loading import user_code
from edgekit.workload.preprocessing import Augmentation, Preprocessing
from edgekit.workload.samples import Samples, Unlabelled

__all__ = ["Workload"]

_PLAIN = Preprocessing()
_CHECKED = 4  # samples that check() sends through the model
_BATCH = 256  # of answers that stand for labels


@dataclass(frozen=True, init=False, eq=False)
class Workload:
    """A trained model and everything needed to compress it and to tell how good it still is.

    Args:
        name: short; it names the run folder.
        model: trained, on the CPU. It takes what ``preprocessing`` gives, and returns one tensor.
        task: what outputs and targets mean.
        train, validation: ``Samples``, or what ``Samples.of`` takes: ``(inputs, targets)`` or a dataset. Raw,
            as they come before ``preprocessing``. Calibration and training see ``train`` only. Without
            labels, ``(inputs, None)``: the model's own answers are the targets. Training then learns from its
            teacher alone, and scores on such validation data are those against the original model.
        preprocessing: from raw samples to the model's inputs.
        augmentation: for training images only.
        student: a smaller model for the distill stage, or a function without arguments that builds one.
        classes: names, in the order of the labels.
        teachers: further trained models; in distillation their answers are averaged with those of ``model``.
        groups: a name for each validation sample (light, microphone, age, …): the report compares them.
        about: for the model card, in words: "license", "data", "data_license", "intended_use", "limitations",
            "authors", "source", or keys of your own.

        decode: a raw sample (a tensor without the batch) as text to read, for token ids; the report shows it.

    Raises:
        DataError: samples that are none (see ``Samples.of``).
        WorkloadError: arguments of the wrong kind.
    """

    name: str
    model: nn.Module
    task: Task
    train: Samples
    validation: Samples
    preprocessing: Preprocessing
    augmentation: Augmentation | None
    student: nn.Module | Callable[[], nn.Module] | None
    classes: tuple[str, ...] | None
    teachers: tuple[nn.Module, ...]
    groups: tuple[str, ...] | None
    about: dict[str, str]
    decode: Callable[[Tensor], str] | None

    def __init__(
        self,
        name: str,
        model: nn.Module,
        task: Task,
        train: Any,
        validation: Any,
        preprocessing: Preprocessing = _PLAIN,
        augmentation: Augmentation | None = None,
        student: nn.Module | Callable[[], nn.Module] | None = None,
        classes: Sequence[str] | None = None,
        teachers: Sequence[nn.Module] = (),
        groups: Sequence[str] | None = None,
        about: Mapping[str, str] | None = None,
        decode: Callable[[Tensor], str] | None = None,
    ) -> None:
        if decode is not None and not callable(decode):
            raise WorkloadError(
                "wrong kind of argument",
                where="Workload(decode=…)",
                got=type(decode).__name__,
                expected="a function: one raw sample → text",
            )
        for key, value, kind in (
            ("name", name, str),
            ("model", model, nn.Module),
            ("task", task, Task),
            ("preprocessing", preprocessing, Preprocessing),
            ("augmentation", augmentation, Augmentation | None),
            *((f"teachers[{i}]", teacher, nn.Module) for i, teacher in enumerate(teachers)),
        ):
            if not isinstance(value, kind):
                expected = getattr(kind, "__name__", str(kind))
                raise WorkloadError(
                    "wrong kind of argument",
                    where=f"Workload({key}=…)",
                    got=type(value).__name__,
                    expected=expected,
                )
        words = about if about is not None else {}
        if not isinstance(words, Mapping) or {type(one) for pair in words.items() for one in pair} - {str}:
            raise WorkloadError(
                "wrong kind of argument",
                where="Workload(about=…)",
                got=repr(about),
                expected='words by their keys, {"license": "Apache-2.0"}',
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise WorkloadError(
                "a name that can't name a folder",
                where="Workload(name=…)",
                got=repr(name),
                expected="letters, digits, '.', '_' and '-'",
            )
        for one in (model, student, *teachers):
            if isinstance(one, nn.Module):
                detach_kept(one)  # stages copy models
        values: dict[str, object] = {
            "name": name,
            "model": model,
            "task": task,
            "train": Samples.of(train, "train"),
            "validation": Samples.of(validation, "validation"),
            "preprocessing": preprocessing,
            "augmentation": augmentation,
            "student": student,
            "classes": None if classes is None else tuple(map(str, classes)),
            "teachers": tuple(teachers),
            "groups": None if groups is None else tuple(map(str, groups)),
            "about": dict(words),
            "decode": decode,
        }
        for split in ("train", "validation"):
            if isinstance(samples := values[split], Unlabelled):
                values[split] = Unlabelled(samples.inputs, self._answers)
        if isinstance(values["validation"], Unlabelled):
            values["task"] = task.against_original()
        for key, checked in values.items():
            object.__setattr__(self, key, checked)

    def example(self, n: int = 1) -> Tensor:
        """The first ``n`` validation inputs, preprocessed: what the model takes."""
        return self.preprocessing(self.validation.inputs[:n]).contiguous()

    def samples(self, indices: Sequence[int]) -> Tensor:
        """The validation inputs of these numbers, preprocessed: (len(indices), …)."""
        return self.preprocessing(self._raw(indices)).contiguous()

    def pixels(self, indices: Sequence[int]) -> Tensor:
        """The validation pictures of these numbers as they are, (len(indices), H, W, C)."""
        raw = self._raw(indices)
        return (raw if self.preprocessing.layout == "NHWC" else raw.permute(0, 2, 3, 1)).contiguous()

    def _raw(self, indices: Sequence[int]) -> Tensor:
        inputs = self.validation.inputs
        return torch.cat([inputs[index : index + 1] for index in indices])

    def text_of(self, raw: Tensor) -> str | None:
        """A raw sample (a tensor without the batch) as text, or None if the workload doesn't say how.

        Raises WorkloadError if its ``decode`` fails, or gives no text.
        """
        if self.decode is None:
            return None
        where = f"workload {self.name}: decode"
        with user_code(where):
            text = self.decode(raw)
        if not isinstance(text, str):
            raise WorkloadError(
                "decode gave no text", where=where, got=type(text).__name__, expected="a str for one sample"
            )
        return text

    def _answers(self, raw: Tensor) -> Tensor:
        """The model's answers to raw inputs (N, …), in the form of targets: in eval mode and float32."""
        forward = Forward(self.model)
        size = batch_size(self.model, self.preprocessing(raw[:2]), _BATCH)
        with mode(self.model, training=False), torch.no_grad():
            told = [
                self.task.answers(forward(self.preprocessing(raw[start:end])))
                for start, end in spans(len(raw), size)
            ]
        return torch.cat(told).contiguous()

    def build_student(self) -> nn.Module | None:
        """A fresh student (the same weights on every call), or None if the workload has none."""
        if self.student is None:
            return None
        if isinstance(self.student, nn.Module):
            return copy.deepcopy(self.student)
        with user_code(f"workload {self.name}: student"):
            student = self.student()
        if not isinstance(student, nn.Module):
            raise WorkloadError(
                "the student is no model",
                where=f"workload {self.name}: student",
                got=type(student).__name__,
                expected="a torch.nn.Module",
            )
        return student

    def check(self) -> None:
        """Send a few samples through and look at everything that would fail later.

        Raises:
            DataError: shapes, labels or values that don't fit model or task.
            WorkloadError: a model that fails on its own data, or settings that contradict each other.
        """
        self._check_data()
        self._check_settings()
        self.text_of(self.validation.inputs[0])
        outputs = self._check_model(self.model, "model")
        student = self.build_student()
        others = [] if student is None else [("student", student)]
        others += [(f"teachers[{index}]", teacher) for index, teacher in enumerate(self.teachers)]
        for role, other in others:
            answered = self._check_model(other, role)
            if answered.shape != outputs.shape:
                raise WorkloadError(
                    f"the {role.split('[')[0].removesuffix('s')} answers in another shape than the model",
                    where=f"workload {self.name}: {role}",
                    got=str(tuple(answered.shape)),
                    expected=str(tuple(outputs.shape)),
                )

    def _check_data(self) -> None:
        train, validation = self.train, self.validation
        labelled = train.labelled and validation.labelled
        for part in ("inputs", "targets") if labelled else ("inputs",):
            one, other = getattr(train, part), getattr(validation, part)
            if one.shape[1:] != other.shape[1:] or one.dtype != other.dtype:
                raise DataError(
                    f"train and validation {part} differ in shape or type",
                    where=f"workload {self.name}",
                    got=f"train {tuple(one.shape[1:])} {one.dtype}, "
                    f"validation {tuple(other.shape[1:])} {other.dtype}",
                    expected="the same for both",
                )
        for split, samples in (("train", train), ("validation", validation)):
            if samples.labelled:
                self.task.check_targets(samples.targets, where=f"{split} targets")

    def _check_settings(self) -> None:
        where = f"workload {self.name}"
        classes = getattr(self.task, "num_classes", None)
        if self.classes is not None and classes is not None and len(self.classes) != classes:
            raise WorkloadError(
                "names of classes don't fit the task",
                where=where,
                got=str(len(self.classes)),
                expected=str(classes),
            )
        if self.groups is not None and len(self.groups) != len(self.validation):
            raise WorkloadError(
                "groups don't fit the validation samples",
                where=where,
                got=f"{len(self.groups)} names",
                expected=f"one for each of {len(self.validation)} samples",
            )
        if self.augmentation is None or not self.augmentation.active:
            return
        if self.preprocessing.layout == "any":
            raise WorkloadError(
                "augmentation moves pixels, and these inputs are no images",
                where=where,
                got='Preprocessing(layout="any")',
                expected='"NCHW" or "NHWC"',
            )
        if self.task.spatial_targets:
            raise WorkloadError(
                "augmentation would move the inputs and leave the targets",
                where=where,
                got=f"an augmentation with a {self.task.kind} task",
                expected="no augmentation",
                next="augment the data before it is given to Workload",
            )

    def _check_model(self, model: nn.Module, role: str) -> Tensor:
        where = f"workload {self.name}: {role}"
        answering.check_types(model, where)
        inputs = self.example(_CHECKED)
        outputs = answering.answer(model, inputs, where)
        # Labels of the whole split were looked at; a batch may well hold none that count.
        labels = (
            self.validation.targets[:_CHECKED] if self.validation.labelled else self.task.answers(outputs)
        )
        self.task.check_outputs(outputs, labels)
        answering.check_steady(model, inputs, outputs, where)
        return outputs

    def check_training(self, model: nn.Module, role: str = "model") -> str:
        """A note if a model gives more in train mode than its one output, "" if not.

        Raises WorkloadError if it can't be trained as it is: it fails in train mode, or the first tensor that
        it gives there isn't its output.
        """
        where, inputs = f"workload {self.name}: {role}", self.example(_CHECKED)
        return answering.check_training(model, inputs, answering.answer(model, inputs, where), where)

    def fingerprint(self) -> str:
        """sha256 over weights, architecture, data, preprocessing and task: what a result depends on."""
        digest = hashlib.sha256()
        described = {
            "name": self.name,
            "task": self.task.describe(),
            "preprocessing": self.preprocessing.to_dict(),
            "augmentation": None if self.augmentation is None else self.augmentation.to_dict(),
            "classes": self.classes,
        }
        digest.update(json.dumps(described, sort_keys=True).encode())
        for model in (self.model, self.build_student(), *self.teachers):
            _digest_model(digest, model)
        for split in (self.train, self.validation):
            _digest_tensor(digest, "inputs", split.inputs)
            if split.labelled:
                _digest_tensor(digest, "targets", split.targets)
            else:
                digest.update(b"targets: the model's answers")
        return digest.hexdigest()


def _digest_model(digest: hashlib._Hash, model: nn.Module | None) -> None:
    if model is None:
        digest.update(b"none")
        return
    digest.update(re.sub(r" at 0x[0-9a-f]+", "", repr(model)).encode())
    # repr() shows layers, not what forward() does with them.
    for kind in sorted({type(m) for m in model.modules()}, key=lambda k: f"{k.__module__}.{k.__qualname__}"):
        if kind.__module__.split(".", 1)[0] != "torch":
            try:
                digest.update(inspect.getsource(kind).encode())
            except (OSError, TypeError):
                digest.update(kind.__qualname__.encode())
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            _digest_tensor(digest, name, value)


def _digest_tensor(digest: hashlib._Hash, name: str, value: Tensor) -> None:
    digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
    digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
