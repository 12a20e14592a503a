from __future__ import annotations

import copy
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import DataError, InputError, WeightsError, WorkloadError
from edgekit.opening import load_workload
from edgekit.tasks import Classification, Segmentation
from edgekit.workload import Augmentation, Preprocessing, Samples, Workload


def data(n: int = 12, classes: int = 3, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 6, 6, 1), dtype=np.uint8), rng.integers(0, classes, n)


def net(outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 4, outputs)
    )


def make(**changes: Any) -> Workload:
    settings: dict[str, Any] = {
        "name": "tiny",
        "model": net(),
        "task": Classification(3),
        "train": data(12),
        "validation": data(8, seed=1),
        "preprocessing": Preprocessing(layout="NHWC", scale=1 / 255),
    }
    return Workload(**{**settings, **changes})


class TestWorkload:
    def test_checks_and_gives_examples(self) -> None:
        workload = make(augmentation=Augmentation(True, 1), classes=["a", "b", "c"], student=net)
        workload.check()
        assert workload.example().shape == (1, 1, 6, 6)
        assert workload.example(5).shape == (5, 1, 6, 6)
        assert isinstance(workload.train, Samples)
        assert workload.train.inputs.dtype == torch.uint8

    def test_is_frozen_and_can_be_replaced(self) -> None:
        workload = make()
        with pytest.raises(FrozenInstanceError):
            workload.name = "other"  # type: ignore[misc]
        assert replace(workload, name="other").name == "other"

    def test_check_leaves_the_model_as_it_was(self) -> None:
        model = net().train()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        make(model=model).check()
        assert all(module.training for module in model.modules())
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    @pytest.mark.parametrize(
        "changes",
        [
            {"model": net},
            {"task": "classification"},
            {"preprocessing": None},
            {"augmentation": 4},
            {"name": 3},
        ],
    )
    def test_arguments_of_the_wrong_kind(self, changes: dict[str, Any]) -> None:
        with pytest.raises(WorkloadError, match="wrong kind"):
            make(**changes)

    @pytest.mark.parametrize("name", ["", "a/b", "..", "my net", "-x"])
    def test_a_name_must_be_able_to_name_a_folder(self, name: str) -> None:
        with pytest.raises(WorkloadError, match="name"):
            make(name=name)

    @pytest.mark.parametrize(
        ("changes", "kind", "message"),
        [
            ({"train": (data()[0], data()[1] + 1)}, DataError, "train targets: labels out of range"),
            (
                {"validation": (data()[0], data()[1] - 1)},
                DataError,
                "validation targets: labels out of range",
            ),
            ({"validation": (data()[0][:, :5], data()[1])}, DataError, "differ in shape"),
            ({"train": (data()[0] / 1.0, data()[1])}, DataError, "differ in shape or type"),
            ({"model": net(4)}, DataError, "outputs don't fit"),
            ({"preprocessing": Preprocessing(layout="NCHW")}, WorkloadError, "fails on its own data"),
            ({"preprocessing": Preprocessing(layout="NHWC", size=(9, 9))}, WorkloadError, "fails on its own"),
            ({"classes": ["a", "b"]}, WorkloadError, "names of classes"),
            ({"student": lambda: net(4)}, DataError, "outputs don't fit"),
            ({"student": lambda: 3}, WorkloadError, "student is no model"),
        ],
    )
    def test_check_finds(self, changes: dict[str, Any], kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message):
            make(**changes).check()

    def test_check_finds_a_model_that_answers_nan(self) -> None:
        model = net()
        with torch.no_grad():
            model[4].bias[0] = float("nan")  # type: ignore[index]
        with pytest.raises(WorkloadError, match="NaN"):
            make(model=model).check()

    def test_check_finds_a_model_that_returns_a_tuple(self) -> None:
        class Two(nn.Module):
            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                return x, x

        with pytest.raises(WorkloadError, match="several tensors, and the task is about one"):
            make(model=Two()).check()

    def test_a_failing_model_shows_its_own_frames(self) -> None:
        class Failing(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                raise KeyError("inside forward")

        with pytest.raises(WorkloadError) as error:
            make(model=Failing()).check()
        assert "inside forward" in error.value.user_traceback
        assert "test_workload.py" in error.value.user_traceback
        assert "edgekit/workload.py" not in error.value.user_traceback

    def test_augmentation_needs_images_and_targets_that_stay(self) -> None:
        with pytest.raises(WorkloadError, match="no images"):
            make(preprocessing=Preprocessing(), augmentation=Augmentation(shift=1)).check()
        masks = np.zeros((12, 6, 6), int)
        segmentation = {
            "task": Segmentation(3),
            "train": (data()[0], masks),
            "validation": (data()[0], masks),
        }
        with pytest.raises(WorkloadError, match="leave the targets"):
            make(**segmentation, augmentation=Augmentation(shift=1)).check()

    def test_students_are_fresh_and_the_same_on_every_call(self) -> None:
        for student in (net(), lambda: nn.Linear(3, 3)):
            workload = make(student=student)
            one, two = workload.build_student(), workload.build_student()
            assert one is not None
            assert two is not None
            assert one is not two
            assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        assert make().build_student() is None


class Doubled(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = module(x)
        return 2 * x


class TestFingerprint:
    def test_is_the_same_for_the_same(self) -> None:
        assert make().fingerprint() == make().fingerprint()

    @pytest.mark.parametrize(
        "change",
        [
            lambda w: {"name": "other"},
            lambda w: {"task": Classification(4)},
            lambda w: {"preprocessing": Preprocessing(layout="NHWC", scale=1 / 256)},
            lambda w: {"augmentation": Augmentation(shift=1)},
            lambda w: {"train": (w.train.inputs + 1, w.train.targets)},
            lambda w: {"validation": (w.validation.inputs, w.validation.targets.flip(0))},
            lambda w: {"student": net},
            lambda w: {"model": Doubled(*w.model)},
            lambda w: {"model": nn.Sequential(*list(w.model)[:2], nn.ReLU6(), *list(w.model)[3:])},
        ],
    )
    def test_changes_with_everything_that_a_result_depends_on(
        self, change: Callable[[Workload], Any]
    ) -> None:
        workload = make()
        assert replace(workload, **change(workload)).fingerprint() != workload.fingerprint()

    def test_changes_with_one_weight(self) -> None:
        workload = make()
        before = workload.fingerprint()
        with torch.no_grad():
            workload.model[0].weight[0, 0, 0, 0] += 1e-6  # type: ignore[index]
        assert workload.fingerprint() != before


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Writes a workload file; forgets what it put on the import path afterwards."""

    def writer(code: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(textwrap.dedent(code))
        return path

    path, modules = list(sys.path), set(sys.modules)
    yield writer
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("edgekit_workload_") or name == "neighbour":
            del sys.modules[name]


GOOD = """
    import numpy as np
    import torch
    from torch import nn
    from edgekit import Classification, Workload

    def build(name):
        x, y = np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1])
        return Workload(name, nn.Linear(3, 2), Classification(2), (x, y), (x, y))

    def workload():
        return build("default")

    def other():
        return build("second")
"""


class TestLoadWorkload:
    def test_a_file_and_a_function_in_it(self, write: Callable[[str], Path]) -> None:
        path = write(GOOD)
        assert load_workload(path).name == "default"
        assert load_workload(str(path)).name == "default"
        assert load_workload(f"{path}:other").name == "second"

    def test_a_workload_or_a_function_as_they_are(self) -> None:
        workload = make()
        assert load_workload(workload) is workload
        assert load_workload(lambda: workload) is workload

    def test_nothing_is_the_embedded_demo(self) -> None:
        assert load_workload().name == "digits"

    def test_random_weights_are_the_same_each_time_and_the_callers_generator_is_untouched(
        self, write: Callable[[str], Path]
    ) -> None:
        path = write(GOOD)
        torch.manual_seed(7)
        state = torch.get_rng_state()
        assert load_workload(path).fingerprint() == load_workload(path).fingerprint()
        assert torch.equal(state, torch.get_rng_state())

    def test_neighbours_can_be_imported_now_and_later(
        self, write: Callable[[str], Path], tmp_path: Path
    ) -> None:
        (tmp_path / "neighbour.py").write_text("NAME = 'from-neighbour'\n")
        path = write(GOOD.replace('"default"', "__import__('neighbour').NAME"))
        assert load_workload(path).name == "from-neighbour"
        assert sys.path[0] != str(tmp_path)
        assert sys.path[-1] == str(tmp_path)

    def test_missing_file_suggests_a_neighbour(self, write: Callable[[str], Path], tmp_path: Path) -> None:
        write(GOOD)
        with pytest.raises(WorkloadError) as error:
            load_workload(tmp_path / "mien.py")
        assert "did you mean 'mine.py'?" in error.value.next
        assert "nothing there" in error.value.got

    @pytest.mark.parametrize("spec", ["no/such/folder/w.py", "resnet", "w.py:function", ".", "", "a:b"])
    def test_files_that_are_none(self, spec: str) -> None:
        with pytest.raises(WorkloadError, match="no such workload file"):
            load_workload(spec)

    def test_missing_function_lists_what_there_is(self, write: Callable[[str], Path]) -> None:
        with pytest.raises(WorkloadError) as error:
            load_workload(f"{write(GOOD)}:othr")
        assert "did you mean 'other'?" in error.value.next

    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            ("import no_such_module_here\n", "ModuleNotFoundError"),
            ("def workload(:\n", "SyntaxError"),
            ("def helper():\n    return 1 / 0\ndef workload():\n    return helper()\n", "ZeroDivisionError"),
            ("raise SystemExit(3)\n", "SystemExit"),
            (
                "def workload():\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n"
                "        raise ValueError('second') from e\n",
                "ZeroDivisionError",
            ),
        ],
    )
    def test_failing_code_shows_its_own_traceback_and_none_of_ours(
        self, code: str, expected: str, write: Callable[[str], Path]
    ) -> None:
        path = write(code)
        with pytest.raises(WorkloadError) as error:
            load_workload(path)
        shown = error.value.user_traceback
        assert expected in shown
        assert str(path) in shown
        assert "edgekit/loading.py" not in shown
        assert "importlib" not in shown
        assert error.value.exit_code == 2

    def test_a_failing_file_can_be_mended_and_loaded_again(self, write: Callable[[str], Path]) -> None:
        with pytest.raises(WorkloadError):
            load_workload(write("1 / 0\n"))
        assert load_workload(write(GOOD)).name == "default"

    @pytest.mark.parametrize("value", ["None", "3", "Workload"])
    def test_another_result_is_refused(self, value: str, write: Callable[[str], Path]) -> None:
        path = write(f"from edgekit import Workload\ndef workload():\n    return {value}\n")
        with pytest.raises(WorkloadError, match="returned no Workload"):
            load_workload(path)

    def test_ctrl_c_passes(self, write: Callable[[str], Path]) -> None:
        with pytest.raises(KeyboardInterrupt):
            load_workload(write("def workload():\n    raise KeyboardInterrupt\n"))

    def test_edgekits_own_errors_pass_as_they_are(self, write: Callable[[str], Path]) -> None:
        with pytest.raises(DataError, match="no samples"):
            load_workload(
                write(GOOD.replace("np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1])", "[], []"))
            )
        code = "from edgekit import load_weights\ndef workload():\n    load_weights(None, 'none.pt')\n"
        with pytest.raises(WeightsError, match="no such weights"):
            load_workload(write(code))


class TestTeachers:
    def test_count_in_the_fingerprint_and_are_checked(self) -> None:
        workload = make(teachers=[net()])
        workload.check()
        assert workload.fingerprint() != make().fingerprint()
        with pytest.raises(DataError, match="outputs don't fit the task"):
            make(teachers=[net(), net(4)]).check()

    def test_are_models(self) -> None:
        with pytest.raises(WorkloadError, match=r"teachers\[0\]"):
            make(teachers=[net])


class TestWithoutLabels:
    def test_the_targets_are_the_models_answers_asked_for_once(self) -> None:
        calls = []
        model = net()
        model.register_forward_hook(lambda *_: calls.append(1))
        x, _ = data(600)
        workload = make(model=model, train=(x, None))
        assert not workload.train.labelled
        assert workload.validation.labelled
        assert not calls
        targets = workload.train.targets
        assert len(calls) == 4  # three batches, after two samples that tell how large batches may be
        with torch.no_grad():
            answers = model.eval()(workload.preprocessing(workload.train.inputs)).argmax(1)
        assert torch.equal(targets, answers)
        assert workload.train.targets is targets

    def test_a_workload_without_any_label_scores_against_the_original(self) -> None:
        x, _ = data(12)
        workload = make(train=(x, None), validation=(x, None))
        workload.check()
        assert (
            workload.task.score(workload.model.eval()(workload.example(12)), workload.validation.targets) == 1
        )
        assert workload.task.describe()["metric"] == "top-1 against the original model"
        assert replace(workload, name="other").task.describe() == workload.task.describe()
        assert make().task.describe()["metric"] == make(train=(x, None)).task.describe()["metric"] == "top-1"

    def test_the_fingerprint_knows_the_difference(self) -> None:
        x, y = data(12)
        assert make(train=(x, None)).fingerprint() == make(train=(x, None)).fingerprint()
        assert make(train=(x, None)).fingerprint() != make(train=(x, y)).fingerprint()

    def test_inputs_and_outputs_are_checked_all_the_same(self) -> None:
        x, _ = data(12)
        with pytest.raises(DataError, match="inputs differ"):
            make(train=(x[:, :4], None)).check()
        with pytest.raises(DataError, match="outputs don't fit"):
            make(model=net(4), train=(x, None), validation=(x, None)).check()


class KeepsItsBias(nn.Module):
    """As LeViT does between calls in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bias = nn.Linear(4, 4), nn.Parameter(torch.zeros(4))
        self.kept: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept["bias"] = self.bias + 1
        return self.first(x) + self.kept["bias"]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of old-style weight norm about itself
def test_a_model_that_was_asked_with_gradients_can_be_copied() -> None:
    for model in (KeepsItsBias(), nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)))):
        inputs = torch.randn(6, 4)
        before = model(inputs).detach()
        with pytest.raises(RuntimeError, match="graph leaves"):
            copy.deepcopy(model)
        data = (inputs, torch.arange(6) % 4)
        Workload("kept", model, Classification(4), data, data)
        assert torch.equal(copy.deepcopy(model)(inputs), before)
        model(inputs).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_want_of_memory_is_no_mistake_of_the_users_code() -> None:
    def mine() -> Workload:
        raise MemoryError("Unable to allocate 7 GiB")

    with pytest.raises(InputError, match="not enough memory") as caught:
        load_workload(mine)
    assert not isinstance(caught.value, WorkloadError)
    assert "mine" in caught.value.where
