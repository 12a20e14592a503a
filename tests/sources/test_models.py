from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekit.errors import InputError, MissingExtraError, WeightsError, WorkloadError
from edgekit.pictures.transform import ImageTransform
from edgekit.progress import Event, told_while_reading
from edgekit.sources import huggingface, timm
from edgekit.sources.making import SOURCES, load_model, look_up
from edgekit.sources.sizes import check_sizes
from tests.sources.fake import install


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "packages", monkeypatch)


def loaded(*arguments: Any, **more: Any) -> tuple[nn.Module, list[str]]:
    """The model, and the warnings that were told."""
    said: list[Event] = []
    with told_while_reading(said.append):
        model = load_model(*arguments, **more)
    return model, [one.message for one in said if one.kind == "warning"]


@pytest.mark.usefixtures("fake")
def test_random_weights_are_told_and_the_same_every_time() -> None:
    model, told = loaded("timm:tinynet_a", 3)
    assert not model.training
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    assert ["random" in one and "accuracy means nothing" in one for one in told] == [True]
    again, _ = loaded("timm:tinynet_a", 3)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("timm:tinynet_c", "did you mean tinynet_b, tinynet_a?"),
        ("timm:resnt18", "resnet18"),
        ("timm:xqz", "timm.list_models()"),
        ("timm:tinynet_a.in22k", "tinynet_a.in1k"),
        ("tim:tinynet_a", "did you mean timm:tinynet_a?"),
        ("tinynet_a", "did you mean timm:tinynet_a?"),
        ("timm:", "timm:NAME"),
        ("timm:hf-hub:somebody/something", "timm has no model of this name"),
    ],
)
def test_a_name_that_is_not_there_is_told_with_those_near_it(source: str, told: str) -> None:
    with pytest.raises(WorkloadError) as caught:
        load_model(source, 3)
    assert told in str(caught.value)


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_a_missing_package_is_told_with_its_command(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match="pip install --no-deps") as caught:
        load_model(f"{package}:resnet18", 3)
    assert f"{package} is not installed" in str(caught.value)


@pytest.mark.usefixtures("fake")
def test_pretrained_weights_that_cannot_be_fetched() -> None:
    with pytest.raises(WeightsError, match="couldn't be fetched") as caught:
        load_model("timm:tinynet_a", 3, pretrained=True)
    assert "https://huggingface.co/timm/tinynet_a.in1k/resolve/main/model.safetensors" in str(caught.value)


OF_TEN = {"head.weight": torch.ones(10, 8), "head.bias": torch.ones(10)}
HALVES = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w: w, None),
        (lambda w: {f"module.{k}": v for k, v in w.items()}, None),
        (
            lambda w: w | {"head.weight": torch.ones(10, 8), "head.bias": torch.ones(10)},
            "10 classes, the data 3",
        ),
        (lambda w: {k: v for k, v in w.items() if "head" not in k}, "no head, the data 3"),
    ],
    ids=["whole", "prefixed", "another-head", "no-head"],
)
def test_weights_of_another_head_keep_all_but_the_head(
    change: Callable[[dict[str, Any]], dict[str, Any]], told: str | None, tmp_path: Path
) -> None:
    wanted = {
        "conv.weight": torch.full((8, 3, 3, 3), 0.5),
        "conv.bias": torch.full((8,), 0.25),
        "head.weight": torch.full((3, 8), 0.125),
        "head.bias": torch.zeros(3),
    }
    save_file({k: v.contiguous() for k, v in change(wanted).items()}, tmp_path / "w.safetensors")
    model, warnings = loaded("timm:tinynet_a", 3, weights=tmp_path / "w.safetensors")
    assert torch.equal(model.state_dict()["conv.weight"], wanted["conv.weight"])
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert [told in one and "untrained" in one for one in warnings if told] == ([True] if told else [])
    assert len(warnings) == (1 if told else 0)


@pytest.mark.usefixtures("fake")
def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"conv.weight": torch.ones(8, 3, 5, 5), "other": torch.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="the weights don't fit the model"):
        load_model("timm:tinynet_a", 3, weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, {"size": (224, 224), "resize": (256, 256)}),
        ({"crop_pct": 1.0, "input_size": (3, 256, 256)}, {"size": (256, 256), "resize": (256, 256)}),
        ({"crop_mode": "squash", "crop_pct": 1.0}, {"fit": "stretch"}),
        ({"crop_mode": "border", "crop_pct": 0.9}, {"fit": "contain", "resize": (224, 224)}),
        ({"input_size": (1, 96, 96), "mean": (0.5,), "std": (0.5,)}, {"mode": "L", "size": (96, 96)}),
        ({"crop_pct": 0.95, "input_size": (3, 224, 112)}, {"size": (224, 112), "resize": (235, 117)}),
    ],
)
def test_what_timm_says_about_pictures(config: dict[str, Any], wanted: dict[str, Any]) -> None:
    usual = {
        "input_size": (3, 224, 224),
        "crop_pct": 0.875,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }
    found = timm.transform_of(usual | config)
    assert {key: getattr(found, key) for key in wanted} == wanted
    assert found.interpolation == "bicubic"


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, ImageTransform(size=(384, 384), fit="stretch")),
        (
            {
                "size": {"height": 224, "width": 224},
                "resample": 2,
                "image_mean": [0.5] * 3,
                "image_std": [0.5] * 3,
            },
            ImageTransform(fit="stretch", mean=(0.5,) * 3, std=(0.5,) * 3),
        ),
        (
            {
                "size": {"shortest_edge": 256},
                "do_center_crop": True,
                "crop_size": {"height": 224, "width": 224},
            },
            ImageTransform(resize=256),
        ),
        (
            {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3},
            ImageTransform(resize=256, interpolation="bicubic"),
        ),
        (
            {"size": 192, "do_normalize": False},
            ImageTransform(size=(192, 192), fit="stretch", mean=(0.0,), std=(1.0,)),
        ),
        ({"size": 224, "do_rescale": False}, ImageTransform(fit="stretch", scale=1.0)),
    ],
)
def test_what_transformers_say_about_pictures(config: dict[str, Any], wanted: ImageTransform) -> None:
    assert huggingface.transform_of(config, 384) == wanted


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    """A folder as save_pretrained writes it: a ViT of two layers, with 5 classes."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        num_labels=5,
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    told = {
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 2,
    }
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(told))
    return tmp_path / "vit"


@pytest.mark.wide
def test_a_folder_of_transformers(vit: Path) -> None:
    model, told = loaded(f"hf:{vit}", 5)
    assert told == []
    from transformers import ViTForImageClassification

    inputs = torch.rand(2, 3, 32, 32)
    original = ViTForImageClassification.from_pretrained(vit).eval()
    assert torch.equal(model(inputs).logits, original(inputs).logits)
    other, told = loaded(f"hf:{vit}", 3)
    assert "5 classes, the data 3" in told[0]
    assert other(inputs).logits.shape == (2, 3)
    row, name = look_up(f"hf:{vit}")
    assert row.transform(name, model).size == (32, 32)


@pytest.mark.wide
def test_code_in_a_folder_is_never_run(vit: Path) -> None:
    (vit / "evil.py").write_text("raise SystemExit('run')\nclass Evil: pass\n")
    config = json.loads((vit / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModelForImageClassification": "evil.Evil"}
    (vit / "config.json").write_text(json.dumps(config))
    with pytest.raises(WorkloadError, match="never runs"):
        load_model(f"hf:{vit}", 5)


@pytest.mark.wide
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "no such weights file"),
        (lambda f: (f / "config.json").write_text("{"), "this file can't be read"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "no image classifier"),
        (lambda f: (f / "config.json").write_text('{"model_type": "nonesuch"}'), "no image classifier"),
        (lambda f: (f / "config.json").unlink(), "nothing there"),
    ],
)
def test_folders_that_hold_no_classifier(vit: Path, change: Callable[[Path], object], told: str) -> None:
    change(vit)
    with pytest.raises(InputError, match=told):
        load_model(f"hf:{vit}", 5)


@pytest.mark.wide
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_hidden_layers": 10**30}, "num_hidden_layers"),
        ({"num_hidden_layers": 5000}, "5e\\+03"),
        ({"hidden_size": 20_000_000}, "hidden_size"),
        ({"hidden_size": 900_000, "intermediate_size": 900_000}, "a model of"),
        ({"rope": {"deep": [1, {"theta": 1e300}]}}, "rope.deep.theta"),
    ],
)
def test_a_configuration_of_more_than_the_weights_are_is_told_before_it_is_built(
    vit: Path, change: dict[str, Any], told: str
) -> None:
    config = json.loads((vit / "config.json").read_text())
    (vit / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(WorkloadError, match=told):
        load_model(f"hf:{vit}", 5)


@pytest.mark.wide
@pytest.mark.parametrize(
    "processor",
    [{"image_mean": [[0.5]]}, {"size": ""}, {"size": [1]}, {"crop_size": 10**30, "do_center_crop": True}],
)
def test_a_processor_that_says_nothing_of_pictures(vit: Path, processor: dict[str, Any]) -> None:
    model = load_model(f"hf:{vit}", 5)
    (vit / "preprocessor_config.json").write_text(json.dumps(processor))
    row, name = look_up(f"hf:{vit}")
    with pytest.raises(InputError):
        row.transform(name, model)


def test_nothing_is_fetched_unasked() -> None:
    with pytest.raises(WorkloadError, match="--pretrained fetches it from the hub; or where"):
        load_model("hf:somebody/something", 5)


NET = """
from torch import nn

def net(num_classes):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))

def fixed():
    return net(7)

def nothing():
    return 5
"""


def test_a_function_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    model, told = loaded(f"{tmp_path}/net.py:net", 3)
    assert told == []
    row, name = look_up(f"{tmp_path}/net.py:net")
    transform = row.transform(name, model)
    assert (transform.mode, transform.size) == ("L", (224, 224))
    assert row.short(name) == "net-net"
    with pytest.raises(WorkloadError, match="the function returned no model"):
        load_model(f"{tmp_path}/net.py:nothing", 3)


# --- the real packages, where they are ---------------------------------------------------------------------


def real(prefix: str) -> None:
    try:
        SOURCES[prefix].build("none", 3, pretrained=False)
    except MissingExtraError as error:
        pytest.skip(f"{error.what}; {error.next}")
    except WorkloadError:
        pass


@pytest.mark.parametrize(
    ("source", "size", "resize"),
    [
        ("timm:mobilenetv3_small_100", 224, 256),
        ("timm:vit_tiny_patch16_224", 224, 248),
        ("torchvision:mobilenet_v3_small", 224, 256),
        ("torchvision:googlenet", 224, 256),
    ],
)
def test_real_networks_by_name(source: str, size: int, resize: int) -> None:
    real(source.partition(":")[0])
    model, told = loaded(source, 3)
    assert "random" in told[0]
    row, name = look_up(source)
    transform = row.transform(name, model)
    assert (transform.size, transform.whole) == ((size, size), (resize, resize))
    with torch.no_grad():
        assert model(torch.zeros(1, 3, size, size)).shape == (1, 3)


@pytest.mark.parametrize(
    ("source", "near"),
    [("timm:mobilenetv3_smal_100", "mobilenetv3_small_100"), ("torchvision:resnet81", "resnet18")],
)
def test_real_names_that_are_near(source: str, near: str) -> None:
    real(source.partition(":")[0])
    with pytest.raises(WorkloadError, match=near):
        load_model(source, 3)


def test_real_weights_with_another_head(tmp_path: Path) -> None:
    real("torchvision")
    trained, _ = loaded("torchvision:googlenet", 10)
    state = {name: one.contiguous() for name, one in trained.state_dict().items()}
    state["aux1.conv.conv.weight"] = torch.ones(1)  # of a head that helps training, which isn't built
    save_file(state, tmp_path / "w.safetensors")
    model, told = loaded("torchvision:googlenet", 3, weights=tmp_path / "w.safetensors")
    assert "10 classes, the data 3" in told[0]
    assert torch.equal(model.state_dict()["conv1.conv.weight"], state["conv1.conv.weight"])


@pytest.mark.parametrize(
    ("told", "fit", "resize"),
    [
        (
            {"size": 224, "crop_pct": 0.875, "feature_extractor_type": "ConvNextFeatureExtractor"},
            "cover",
            256,
        ),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, "stretch", 384),
        (
            {
                "size": 256,
                "do_center_crop": True,
                "crop_size": 224,
                "image_processor_type": "MobileViTImageProcessor",
            },
            "cover",
            256,
        ),
        ({"size": 224, "image_processor_type": "ViTImageProcessor"}, "stretch", 224),
    ],
)
def test_one_number_may_be_the_shortest_side(told: dict[str, Any], fit: str, resize: int) -> None:
    found = huggingface.transform_of(told, 224)
    assert (found.fit, found.resize) == (fit, (resize, resize))


def test_sizes_of_layers_are_no_numbers_of_layers(tmp_path: Path) -> None:
    weights = {f"layer{at}": torch.zeros(200, 200) for at in range(100)}
    config = {
        "stage_out_channels": [512, 2048],
        "block_configs": [[5, 512, 512, 2, True]],
        "num_hidden_layers": 24,
    }
    check_sizes(config, weights, tmp_path)
    with pytest.raises(WorkloadError, match="num_blocks"):
        check_sizes({**config, "encoder": {"num_blocks": 400}}, weights, tmp_path)


@pytest.mark.wide
@pytest.mark.parametrize(
    "change",
    [
        {"attn_implementation": "somebody/kernel"},
        {"quantization_config": {"quant_method": "x"}},
        {"architecture": "hf-hub:a/b"},
    ],
)
def test_nothing_from_elsewhere_is_asked_for_by_a_configuration(vit: Path, change: dict[str, Any]) -> None:
    config = json.loads((vit / "config.json").read_text())
    (vit / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(WorkloadError, match="from elsewhere"):
        load_model(f"hf:{vit}", 5)
