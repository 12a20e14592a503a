"""What is compressed: a trained model with its data, task and preprocessing."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.batching import batch_size
from edgekit.errors import WorkloadError
from edgekit.execution import Forward, call, mode, select_outputs, spans
from edgekit.leaves import detach_kept
from edgekit.tasks import Task
from edgekit.tensors import NamedTensors, Sequences, Targets, Tensors, cat, each
from edgekit.workload import answering, matching, streaming, words
from edgekit.workload.fingerprint import digest_model, digest_targets, digest_task, digest_tensor
from edgekit.workload.loading import user_code
from edgekit.workload.preprocessing import Augmentation, NamedPreprocessing, Preprocessing
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
        model: trained, on the CPU. It takes what ``preprocessing`` gives, several inputs by their names, and
            returns a tensor, or a tuple, list, dict or dataclass of them, nested or not.
        task: what outputs and targets mean; ``Outputs`` for several; or a ``Task`` of your own.
        train, validation: ``Samples``, or what ``Samples.of`` takes: ``(inputs, targets)`` or a dataset. Raw,
            as they come before ``preprocessing``. Calibration and training see ``train`` only. Without
            labels, ``(inputs, None)``: the model's own answers are the targets. Training then learns from its
            teacher alone, and scores on such validation data are those against the original model.
        preprocessing: from raw samples to the model's inputs; a dict of them for several inputs, where those
            that it leaves out become float32, and integers int64.
        augmentation: for training images only.
        student: a smaller model for the distill stage, or a function without arguments that builds one.
        classes: names, in the order of the labels.
        teachers: further trained models; in distillation their answers are averaged with those of ``model``.
        groups: a name for each validation sample (light, microphone, age, …): the report compares them.
        about: for the model card, in words: "license", "data", "data_license", "intended_use", "limitations",
            "authors", "source", or keys of your own.

        decode: a raw sample (a tensor without the batch; of several inputs a dict of them) as text to read,
            for token ids; the report shows it.
        outputs: names of the model's outputs that count, where it has others; None: those of the task.
        states: of a model that streams, which of its outputs is which input in the next step:
            ``{"h_out": "h_in"}``. All other inputs are then sequences (N, T, …), of which the model is given
            (N, …) at a step. Data may hold what a state is before the first step, (N, …); else it is zero.
            The last step's answers count, with ``TokenClassification`` those of all steps.

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
    decode: Callable[[Any], str] | None
    outputs: tuple[str, ...]
    states: dict[str, str]

    def __init__(
        self,
        name: str,
        model: nn.Module,
        task: Task,
        train: Any,
        validation: Any,
        preprocessing: Preprocessing | Mapping[str, Preprocessing] = _PLAIN,
        augmentation: Augmentation | None = None,
        student: nn.Module | Callable[[], nn.Module] | None = None,
        classes: Sequence[str] | None = None,
        teachers: Sequence[nn.Module] = (),
        groups: Sequence[str] | None = None,
        about: Mapping[str, str] | None = None,
        decode: Callable[[Any], str] | None = None,
        outputs: Sequence[str] | None = None,
        states: Mapping[str, str] | None = None,
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
            ("preprocessing", preprocessing, Preprocessing | Mapping),
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
        words.refuse_name(name)
        states = streaming.checked(states)
        # Of a workload that is a changed copy of another, all of its fields are given.
        own = outputs if isinstance(outputs, str) else [name for name in outputs or () if name not in states]
        wanted = _wanted(task, own)
        if states and wanted:
            wanted = tuple(dict.fromkeys([*wanted, *states]))
        for one in (model, student, *teachers):
            if isinstance(one, nn.Module):
                detach_kept(one)  # stages copy models
                select_outputs(one, wanted)
        names, unequal = answering.parameters_of(model), matching.unequal_of(task)
        splits = (("train", train), ("validation", validation))
        data = matching.in_one_order(
            {split: Samples.of(given, split, names=names, unequal=unequal) for split, given in splits}
        )
        if states:
            data = streaming.with_states(data, model, states)
        raw = data["train"].inputs
        if isinstance(raw, NamedTensors):
            preprocessing = NamedPreprocessing.of(
                None if preprocessing is _PLAIN else preprocessing,
                raw,
                states,
                stacked=task.stepwise,
            )
        elif not isinstance(preprocessing, Preprocessing) or isinstance(preprocessing, NamedPreprocessing):
            raise WorkloadError(
                "preprocessing for several inputs, and there is one",
                where="Workload(preprocessing=…)",
                got=f"one for each of {', '.join(preprocessing)}"
                if isinstance(preprocessing, Mapping)
                else "one for each of several",
                expected="Preprocessing(…)",
            )
        values: dict[str, object] = {
            "name": name,
            "model": model,
            "task": task,
            **data,
            "preprocessing": preprocessing,
            "augmentation": augmentation,
            "student": student,
            "classes": words.refuse_unfit("classes", classes),
            "teachers": tuple(teachers),
            "groups": words.refuse_unfit("groups", groups),
            "about": words.checked_about(about),
            "decode": decode,
            "outputs": wanted,
            "states": states,
        }
        for split in ("train", "validation"):
            if isinstance(samples := values[split], Unlabelled):
                values[split] = Unlabelled(samples.inputs, self._answers)
        if isinstance(values["validation"], Unlabelled):
            values["task"] = task.against_original()
        for key, checked in values.items():
            object.__setattr__(self, key, checked)

    def example(self, n: int = 1) -> Tensors:
        """The first ``n`` validation inputs, preprocessed: what the model takes; of sequences, at a step."""
        prepared = self.whole(n)
        return prepared.step() if isinstance(prepared, Sequences) else prepared

    @property
    def streaming(self) -> dict[str, Any]:
        """How files are asked for whole sequences: "states" and "stacked"; {} where there are none."""
        if not self.states:
            return {}
        return {"states": self.states, "stacked": self.task.stepwise}

    def whole(self, n: int = 1) -> Tensors:
        """The first ``n`` validation inputs, preprocessed; sequences with all of their steps."""
        prepared: Tensors = self.preprocessing(self.validation.inputs[:n]).contiguous()
        return prepared

    def samples(self, indices: Sequence[int]) -> Tensors:
        """The validation inputs of these numbers, preprocessed: (len(indices), …); sequences are whole."""
        prepared: Tensors = self.preprocessing(self._raw(indices)).contiguous()
        return prepared

    def pixels(self, indices: Sequence[int]) -> Tensor:
        """The validation pictures of these numbers as they are, (len(indices), H, W, C)."""
        raw = self._raw(indices)
        assert isinstance(raw, Tensor)  # pictures are asked of workloads that have them
        return (raw if self.preprocessing.layout == "NHWC" else raw.permute(0, 2, 3, 1)).contiguous()

    def _raw(self, indices: Sequence[int]) -> Tensors:
        inputs = self.validation.inputs
        return cat([inputs[index : index + 1] for index in indices])

    def text_of(self, split: Samples, index: int) -> str | None:
        """A raw sample as text, or None if the workload doesn't say how.

        Raises WorkloadError if its ``decode`` fails, or gives no text.
        """
        if self.decode is None:
            return None
        one = split.inputs[index : index + 1]
        raw = {name: value[0] for name, value in one.items()} if isinstance(one, NamedTensors) else one[0]
        where = f"workload {self.name}: decode"
        with user_code(where):
            text = self.decode(raw)
        if not isinstance(text, str):
            raise WorkloadError(
                "decode gave no text", where=where, got=type(text).__name__, expected="a str for one sample"
            )
        return text

    def _answers(self, raw: Tensors) -> Targets:
        """The model's answers to raw inputs (N, …), in the form of targets: in eval mode and float32."""
        forward = Forward(self.model)
        size = batch_size(self.model, self.preprocessing(raw[:2]), _BATCH)
        with mode(self.model, training=False), torch.no_grad():
            told = [
                matching.answered(self.task, forward(self.preprocessing(raw[start:end])))
                for start, end in spans(len(raw), size)
            ]
        answers: Targets = cat(told).contiguous()
        return answers

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
        select_outputs(student, self.outputs)
        return student

    def check(self) -> None:
        """Send a few samples through and look at everything that would fail later.

        Raises:
            DataError: shapes, labels or values that don't fit model or task.
            WorkloadError: a model that fails on its own data, or settings that contradict each other.
        """
        matching.check_data(self.name, self.task, self.train, self.validation)
        self._check_settings()
        self.text_of(self.validation, 0)
        outputs = self._check_model(self.model, "model")
        student = self.build_student()
        others = [] if student is None else [("student", student)]
        others += [(f"teachers[{index}]", teacher) for index, teacher in enumerate(self.teachers)]
        for role, other in others:
            answered = self._check_model(other, role)
            own, wanted = _shapes(answered), _shapes(outputs)
            if own != wanted:
                raise WorkloadError(
                    f"the {role.split('[')[0].removesuffix('s')} answers in another shape than the model",
                    where=f"workload {self.name}: {role}",
                    got=str(own),
                    expected=str(wanted),
                )

    def _check_settings(self) -> None:
        where = f"workload {self.name}"
        classes = self.task.class_count
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
        if self.task.moves_targets and not self.augmentation.movable:
            raise WorkloadError(
                "random operations would move the inputs and leave the targets",
                where=where,
                got=f"Augmentation(random_operations={self.augmentation.random_operations}) with a "
                f"{self.task.kind} task",
                expected="horizontal_flip, shift and zoom, which targets follow",
            )
        if self.task.spatial_targets and not self.task.moves_targets:
            raise WorkloadError(
                "augmentation would move the inputs and leave the targets",
                where=where,
                got=f"an augmentation with a {self.task.kind} task",
                expected="no augmentation",
                next="augment the data before it is given to Workload",
            )

    def _check_model(self, model: nn.Module, role: str) -> Tensors:
        where = f"workload {self.name}: {role}"
        answering.check_types(model, where)
        inputs = self.example(_CHECKED)
        if isinstance(inputs, NamedTensors):
            answering.check_inputs(model, inputs.names, where)
        outputs = answering.answer(model, inputs, where)
        if self.states:
            streaming.check(inputs, outputs, self.states, where)
            answering.check_steady(model, inputs, outputs, where)
            with mode(model, training=False), torch.no_grad():
                outputs = call(model, self.whole(_CHECKED))
        if isinstance(outputs, NamedTensors) and not self.task.outputs:
            raise WorkloadError(
                "the model returns several tensors, and the task is about one",
                where=where,
                got=", ".join(f"{name} {tuple(one.shape)}" for name, one in outputs.items()),
                expected="one of them, or what each is for",
                next=f"Workload(outputs=[{outputs.names[0]!r}], …) takes one; several have a task each: "
                f"task=Outputs({{{outputs.names[0]!r}: {type(self.task).__name__}(…), …}})",
            )
        answering.check_once(outputs, where)
        # Labels of the whole split were looked at; a batch may well hold none that count.
        labels = (
            self.validation.targets[:_CHECKED]
            if self.validation.labelled
            else matching.answered(self.task, outputs)
        )
        self.task.check_outputs(outputs, labels)
        matching.check_task(self.name, self.task, outputs, labels)
        if not self.states:
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
        described: dict[str, Any] = {
            "name": self.name,
            "task": self.task.describe(),
            "preprocessing": self.preprocessing.to_dict(),
            "augmentation": None if self.augmentation is None else self.augmentation.to_dict(),
            "classes": self.classes,
        }
        if self.outputs:
            described["outputs"] = self.outputs
        if self.states:
            described["states"] = self.states
        digest.update(json.dumps(described, sort_keys=True).encode())
        digest_task(digest, self.task)
        for model in (self.model, self.build_student(), *self.teachers):
            digest_model(digest, model)
        for split in (self.train, self.validation):
            for name, one in each(split.inputs, "inputs"):
                digest_tensor(digest, name, one)
            if split.labelled:
                for name, target in each(split.targets, "targets"):
                    digest_targets(digest, name, target)
            else:
                digest.update(b"targets: the model's answers")
        return digest.hexdigest()


def _wanted(task: Task, outputs: Sequence[str] | None) -> tuple[str, ...]:
    """The outputs that count. Raises WorkloadError unless the names are some, and fit the task."""
    if outputs is None or (not outputs and isinstance(outputs, list)):
        return task.outputs
    names = tuple(outputs)
    if isinstance(outputs, str) or not names or not all(isinstance(name, str) for name in names):
        got, expected = repr(outputs), "a list of names of outputs"
    elif task.outputs and set(names) != set(task.outputs):
        got, expected = ", ".join(names), f"those of the task, {', '.join(task.outputs)}, or none"
    elif not task.outputs and len(names) > 1:
        got, expected = ", ".join(names), "one name; several outputs have a task each: task=Outputs({…})"
    else:
        return names
    raise WorkloadError("wrong kind of argument", where="Workload(outputs=…)", got=got, expected=expected)


def _shapes(outputs: Tensors) -> object:
    """Of all outputs, to compare and to read."""
    if isinstance(outputs, NamedTensors):
        return {name: tuple(one.shape) for name, one in outputs.items()}
    return tuple(outputs.shape)
