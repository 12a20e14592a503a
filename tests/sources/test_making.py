"""From a name and a folder to a workload, a workload file, and a run."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from edgekit import Source, load_workload
from edgekit.cli.app import app
from edgekit.errors import InputError, WorkloadError
from edgekit.pictures.transform import ImageTransform
from edgekit.pipeline.reporting import _guessed
from edgekit.sources.kinds import KINDS
from edgekit.sources.kinds.of_pictures import rescaled
from edgekit.sources.request import is_source
from tests.pictures.made import folder
from tests.sources.fake import install


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``photos/``, in which the commands are given."""
    install(tmp_path / "packages", monkeypatch)
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", "cat dog bird")
    return tmp_path


def edgekit(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_a_workload_from_a_name_and_a_folder() -> None:
    work = load_workload(Source("timm:tinynet_a", "photos"))
    work.check()
    assert work.name == "tinynet_a"
    assert work.classes == ("bird", "cat", "dog")
    assert (len(work.train), len(work.validation)) == (12, 3)
    assert work.example(2).shape == (2, 3, 32, 32)
    assert work.preprocessing.mean == (0.5, 0.4, 0.3)
    assert work.about["source"] == "timm:tinynet_a, weights random"


@pytest.mark.parametrize("kind", ["texts", "sounds", "boxes"])
def test_a_mean_of_what_are_no_pictures_of_classes_is_refused(kind: str, place: Path) -> None:
    (place / "d").mkdir()
    if kind == "texts":
        (place / "d" / "train.csv").write_text("text,label\ngood,a\nfine,a\nbad,b\npoor,b\n")
    elif kind == "sounds":
        (place / "d" / "train.csv").write_text("path,label\n1.wav,a\n2.wav,b\n")
    else:
        (place / "d" / "boxes.json").write_text('{"images": [], "annotations": [], "categories": []}')
    data = "d/train.csv" if kind == "sounds" else "d"
    code, _, said = edgekit(
        "compress", "timm:tinynet_a", "--data", data, "--mean", "0.5", "--recipe", "quick"
    )
    assert code == 2
    assert "--mean is of pictures of classes" in said
    assert kind in said
    with pytest.raises(WorkloadError, match="--mean and --std are of pictures"):
        KINDS[kind].check(Source("timm:tinynet_a", data, mean=(0.5,), std=(0.5,)))


@pytest.mark.parametrize("scale", [1 / 255, 1 / 127.5, 1.0])
def test_a_mean_alone_keeps_the_spread_of_another_scale(scale: float) -> None:
    """By hand: 100 units of the model's scale are a spread of 100 / (255 * scale) in bytes / 255."""
    own = ImageTransform(size=(8, 8), mean=(30.0,), std=(100.0,), scale=scale)
    assert rescaled(own, None, None) == own
    known = rescaled(own, (0.25,), None)
    assert (known.mean, known.scale) == ((0.25,), 1 / 255)
    assert known.std == pytest.approx((100 / (255 * scale),))
    byte = torch.full((1, 8, 8, 3), 200, dtype=torch.uint8)
    same = rescaled(own, tuple(one / (255 * scale) for one in own.mean), None)
    torch.testing.assert_close(same.preprocessing(byte), own.preprocessing(byte))
    assert rescaled(own, None, (0.5,)).mean == pytest.approx((30 / (255 * scale),))


def test_the_same_again_is_the_same_workload() -> None:
    first = load_workload(Source("timm:tinynet_a", "photos")).fingerprint()
    assert load_workload(Source("timm:tinynet_a", "photos")).fingerprint() == first
    shutil.rmtree(os.environ["EDGEKIT_CACHE"])
    assert load_workload(Source("timm:tinynet_a", "photos")).fingerprint() == first
    assert load_workload(Source("timm:tinynet_a", "photos", seed=1)).fingerprint() != first


@pytest.mark.parametrize("out", ["my_workload.py", "elsewhere/work.py"])
def test_the_written_workload_is_the_same(place: Path, out: str) -> None:
    code, told, _ = edgekit("init", "timm:tinynet_a", "--data", "photos", "-o", out)
    assert (code, out in told) == (0, True)
    lines = Path(out).read_text().splitlines()
    assert 15 <= len(lines) <= 40
    os.chdir("/")  # its paths are from where it is
    written = load_workload(place / out)
    os.chdir(place)
    assert written.fingerprint() == load_workload(Source("timm:tinynet_a", "photos")).fingerprint()
    code, _, told = edgekit("init", "timm:tinynet_a", "--data", "photos", "-o", out)
    assert (code, "--force" in told) == (2, True)


def test_the_page_has_what_is_written(root: Path, place: Path) -> None:
    """The example of docs/sources.md, but for its network and its weights."""
    found = re.search(r"```python\n(.*?)```", (root / "docs" / "sources.md").read_text(), re.DOTALL)
    assert found
    torch.save(load_workload(Source("timm:tinynet_a", "photos")).model.state_dict(), "mine.pth")
    code = found[1].replace("timm:mobilenetv3_small_100", "timm:tinynet_a")
    Path("my_workload.py").write_text(code)
    load_workload("my_workload.py").check()


def test_another_size_and_weights(place: Path) -> None:
    model = load_workload(Source("timm:tinynet_a", "photos")).model
    torch.save(model.state_dict(), "net.pth")
    options = ("--data", "photos", "--weights", "net.pth", "--size", "64")
    work = load_workload(Source("timm:tinynet_a", "photos", weights="net.pth", size=64))
    assert work.example().shape == (1, 3, 64, 64)
    assert edgekit("init", "timm:tinynet_a", *options)[0] == 0
    assert "size=(64, 64),\n        resize=72," in Path("my_workload.py").read_text()
    assert load_workload("my_workload.py").fingerprint() == work.fingerprint()


def test_a_function_and_a_folder(place: Path) -> None:
    Path("net.py").write_text(
        "from torch import nn\n"
        "from edgekit import ImageTransform\n\n"
        "def net(num_classes=4):\n"
        "    layers = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)\n"
        "    model = nn.Sequential(*layers)\n"
        "    model.transform = ImageTransform(size=(16, 16))\n"
        "    return model\n\n"
        "def fixed():\n    return net()\n"
    )
    work = load_workload(Source("net.py:net", "photos"))
    assert work.example().shape == (1, 3, 16, 16)
    assert edgekit("init", "net.py:net", "--data", "photos")[0] == 0
    assert load_workload("my_workload.py").fingerprint() == work.fingerprint()
    with pytest.raises(WorkloadError, match="4 outputs, 3 classes"):
        load_workload(Source("net.py:fixed", "photos"))


def test_a_name_without_pictures() -> None:
    with pytest.raises(WorkloadError, match="--data DIR"):
        load_workload("timm:tinynet_a")
    assert load_workload(Source("timm:tinynet_a"), made_up=True).task.class_count == 10


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("compress", "timm:tinynet_x", "--data", "photos"), "did you mean tinynet_"),
        (("compress", "tinynet_a", "--data", "photos"), "did you mean timm:tinynet_a?"),
        (("compress", "timm:tinynet_a"), "--data DIR"),
        (("compress", "timm:tinynet_a", "--data", "foto"), "did you mean 'photos'?"),
        (("compress", "--data", "photos"), "--data goes with a model"),
        (("compress", "my.py", "--weights", "x.pth"), "a workload file brings its own"),
        (("prune", "timm:tinynet_x", "--data", "photos"), "did you mean tinynet_"),
        (("inspect", "timm:tinynet_x"), "did you mean tinynet_"),
        (("init", "timm:tinynet_a"), "--data DIR"),
    ],
)
def test_mistakes_are_told_with_the_way_out(arguments: tuple[str, ...], told: str) -> None:
    code, _, said = edgekit(*arguments)
    assert code == 2
    assert told in said
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("net.tflite", b"", "edgekit inspect net.tflite"),
        ("net.pth", b"PK", "net.py:function --weights net.pth"),
        ("net.pt", b"PK..net/code/__torch__.py", "TorchScript"),
    ],
)
@pytest.mark.parametrize("data", [(), ("--data", "photos")])
def test_files_of_other_kinds_are_told_with_the_way_out(
    name: str, content: bytes, words: str, data: tuple[str, ...]
) -> None:
    Path(name).write_bytes(content)
    code, _, said = edgekit("compress", name, *data)
    assert code == 2
    assert words in " ".join(said.split())
    assert not Path("runs").exists()


def test_damaged_pictures_end_it_by_name_or_are_left_out(place: Path) -> None:
    (place / "photos" / "cat" / "2.jpg").write_bytes(b"\xff\xd8 no more of it")
    code, _, said = edgekit("compress", "timm:tinynet_a", "--data", "photos", "--recipe", "quick")
    assert code == 2
    assert "photos/cat/2.jpg: a damaged JPEG" in said
    assert len(load_workload(Source("timm:tinynet_a", "photos", skip_damaged=True)).train) == 11
    code, shown, _ = edgekit("data", "photos", "--json")
    assert code == 2
    assert json.loads(shown)["damaged"] == [{"file": "photos/cat/2.jpg", "why": "a damaged JPEG"}]
    code, shown, _ = edgekit("data", "photos", "--skip-damaged")
    assert code == 0
    assert "photos/cat/2.jpg: a damaged JPEG" in shown


def test_a_model_that_only_guesses_is_told_in_the_report() -> None:
    work = load_workload(Source("timm:tinynet_a", "photos"))  # validates with one of each class
    (told,) = _guessed(work, 1 / 3)
    assert "33.33 %" in told.message
    assert "untrained" in told.message
    assert list(_guessed(work, 2 / 3)) == []


def test_what_a_source_is() -> None:
    assert [is_source(one) for one in ("timm:x", "tim:x", "net.py:f", "net.py", "x.onnx", "a/b.py")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip
    with pytest.raises(InputError):
        load_workload("onnx:model")


@pytest.mark.wide
def test_a_whole_run_goes_on_and_is_its_own_workload(place: Path) -> None:
    """Twice the same command: nothing is made anew. Its own workload file exports from it."""
    command = ("compress", "timm:tinynet_a", "--data", "photos", "--recipe", "quick", "--out", "run")
    more = ("--set", "benchmark.min_seconds=0.05", "--set", "diagnose.samples=0")
    code, _, said = edgekit(*command, *more)
    assert code == 0, said
    assert said.index("weights are random") < said.index("preflight")
    code, shown, said = edgekit(*command, *more, "--json")
    assert code == 0
    assert "kept from before" in said
    assert json.loads(shown)["workload"]
    work = load_workload(place / "run" / "workload.py")
    assert work.fingerprint() == load_workload(Source("timm:tinynet_a", "photos")).fingerprint()
    assert (place / "run" / "data.csv").read_text().startswith("path,label,split,index\n../photos/")
    code, _, said = edgekit("export", "run", "--precision", "fp16", "--format", "onnx")
    assert (code, "run/workload.py" in said) == (2, True)
    code, _, said = edgekit("export", "run", "run/workload.py", "--precision", "fp16", "--format", "onnx")
    assert code == 0, said
