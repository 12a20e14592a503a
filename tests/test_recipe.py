from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgekit.config import configfile
from edgekit.errors import RecipeError
from edgekit.recipe import (
    BenchmarkConfig,
    ExportConfig,
    Recipe,
    RecommendConfig,
    dump,
    find_recipe,
    list_recipes,
    load_recipe,
)
from edgekit.stages.base import DistillationConfig, StageConfig, TrainingConfig
from edgekit.stages.distill import DistillConfig
from edgekit.stages.prune_config import PruneConfig
from edgekit.stages.qat import QatConfig

SHIPPED = ("gpu", "microcontroller", "mobile", "quick", "raspberry-pi", "server-cpu")


MINIMAL = """\
stages:
  - kind: prune
    speedup: 2
  - kind: qat
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL)
    return path


def faults_of(recipe: str | Path | Recipe, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, overrides)
    assert caught.value.exit_code == 2
    assert all(fault in str(caught.value) for fault in caught.value.faults)
    return list(caught.value.faults)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- what is shipped -------------------------------------------------------------------------------------


def test_the_shipped_recipes_are_those_promised() -> None:
    names = {info.name: info for info in list_recipes()}
    assert set(SHIPPED) <= set(names)
    assert not [info for info in names.values() if info.fault]


@pytest.mark.parametrize("name", SHIPPED)
def test_each_shipped_recipe_loads_and_tells_its_command_and_its_result(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    header = find_recipe(name).read_text(encoding="utf-8").split("\n\n")[0]
    assert f"--recipe {name}" in header
    assert "# measured:" in header


def test_quick_trains_nothing() -> None:
    (stage,) = load_recipe("quick").stages
    assert isinstance(stage, QatConfig)
    assert stage.training.epochs == 0


def test_mobile_distills_prunes_and_quantizes() -> None:
    recipe = load_recipe("mobile")
    assert [stage.kind for stage in recipe.stages] == ["distill", "prune", "qat"]
    assert recipe.exports == ExportConfig()


# --- round trip ------------------------------------------------------------------------------------------

# What a configuration can hold: control characters and halves of surrogate pairs are refused in it.
texts = st.text(st.characters(blacklist_categories=("Cc", "Cs"), whitelist_characters="\t\n"))


names = texts.filter(bool)


shares = st.floats(0, 1)


positives = st.floats(1e-6, 10)


distillations = st.builds(
    DistillationConfig,
    loss=st.sampled_from(["standardized", "classical", "none"]),
    temperature=st.floats(0.01, 100),
    weight=shares,
)


trainings = st.builds(
    TrainingConfig,
    epochs=st.integers(0, 10_000),
    batch_size=st.integers(2, 65_536),
    optimizer=st.sampled_from(["sgd", "adamw"]),
    lr=positives,
    gradient_clip=st.none() | positives,
    distillation=distillations,
)


floats_first = st.lists(
    st.builds(DistillConfig, training=trainings)
    | st.builds(PruneConfig, speedup=st.floats(1.001, 64), training=trainings),
    max_size=3,
)


stage_lists = st.tuples(floats_first, st.builds(QatConfig, training=trainings)).map(
    lambda pair: (*pair[0], pair[1])
)


recipes = st.builds(
    Recipe,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    description=texts,
    seed=st.integers(0, 2**32 - 1),
    stages=stage_lists,
    benchmark=st.builds(
        BenchmarkConfig,
        devices=st.lists(names, min_size=1, max_size=3).map(tuple),
        threads=st.lists(st.integers(1, 1024) | st.just("all"), min_size=1, max_size=3).map(tuple),
        min_seconds=st.floats(0, 600),
    ),
    recommend=st.builds(RecommendConfig, max_accuracy_drop=st.floats(0, 100)),
)


@given(recipe=recipes)
def test_a_recipe_round_trips_through_yaml(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


@given(recipe=recipes)
def test_a_recipe_is_its_own_effective_form(recipe: Recipe) -> None:
    assert load_recipe(recipe) == recipe


json_like: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@given(data=json_like)
def test_yaml_gives_back_what_was_written(data: Any) -> None:
    assert configfile.parse_yaml(configfile.dump_yaml(data)) == data


@given(text=st.text())
def test_any_text_either_parses_or_is_told_to_be_no_yaml(text: str) -> None:
    try:
        configfile.parse_yaml(text)
    except configfile.YamlError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("2E+4", 20000.0),
        (".5", 0.5),
        ("010", 10),
        ("0x10", 16),
        ("1:30", "1:30"),
        ("on", "on"),
        ("no", "no"),
        ("2026-01-01", "2026-01-01"),
        ("true", True),
        ("~", None),
        ("", None),
        ("-.inf", float("-inf")),
    ],
)
def test_yaml_means_what_yaml_12_says(text: str, value: Any) -> None:
    read = configfile.parse_yaml(text)
    assert read == value
    assert type(read) is type(value)


# --- faults ----------------------------------------------------------------------------------------------


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
name: "a b"
sed: 3
stages:
  - kind: prune
    speedpu: 3
    speedup: 0.5
    training: {epochs: many, lr: 1e-3}
  - kind: qtt
  - speedup: 3
exports: {formats: [onnx, tflite]}
benchmark: {threads: [0, al]}
""",
    )
    assert sorted(faults_of(path)) == sorted(
        [
            "name: must match pattern '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$', got 'a b'",
            "sed: unknown key, did you mean 'seed'?",
            "stages[0].speedpu: unknown key, did you mean 'speedup'?",
            "stages[0].speedup: must be greater than 1, got 0.5",
            "stages[0].training.epochs: must be a whole number, got 'many'",
            "stages[1].kind: unknown stage 'qtt', did you mean 'qat'?",
            "stages[2]: must be a mapping with `kind`: one of distill, prune, qat",
            "exports.formats[1]: must be 'onnx', 'litert', 'executorch', 'aotinductor' or 'openvino', "
            "got 'tflite'",
            "benchmark.threads[0]: must be greater than or equal to 1 or 'all', got 0",
            "benchmark.threads[1]: must be a whole number or 'all', got 'al'",
        ]
    )


@pytest.mark.parametrize("key", ["stages.prune.speedup", "stages[0].speedup", "stages.0.speedup"])
@pytest.mark.parametrize("value", ["1", "65", "-2", ".nan", ".inf", "'3'", "true", "[2]"])
def test_a_value_out_of_range_or_of_another_type_is_refused(mine: Path, key: str, value: str) -> None:
    (fault,) = faults_of(mine, f"{key}={value}")
    assert fault.startswith("stages[0].speedup: must be ")


@pytest.mark.parametrize("other", ["formats=[onnx]", "precisions=[fp32]"])
def test_a_microcontroller_takes_int8_litert_files(mine: Path, other: str) -> None:
    (fault,) = faults_of(mine, "exports.microcontroller=true", f"exports.{other}")
    assert "microcontroller needs litert among the formats and int8 among the precisions" in fault


def test_numbers_are_not_cut_to_fit(mine: Path) -> None:
    (fault,) = faults_of(mine, "stages.prune.training.epochs=2.5")
    assert fault == "stages[0].training.epochs: must be a whole number, got 2.5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty file"),
        ("- a", "a list"),
        ("stages: [", "this is no YAML"),
        ("a: 1\na: 2", "the key 'a' stands twice"),
        ("stages: !!python/object/apply:os.system [echo]", "this is no YAML"),
        ("seed: 1", "stages: missing"),
        ("stages: {kind: qat}", "stages: must be a list"),
    ],
)
def test_what_is_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match="recipe.yaml") as caught:
        load_recipe(write(tmp_path, text))
    assert message in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="UTF-8"):
        load_recipe(path)


def test_int8_files_need_a_stage_that_makes_them(mine: Path) -> None:
    (fault,) = faults_of(mine, "stages=[{kind: prune}]")
    assert fault.startswith("exports.precisions: int8 needs a 'qat' stage")
    assert load_recipe(mine, ["stages=[{kind: prune}]", "exports.precisions=[fp32]"]).stages


def test_stages_in_an_order_that_cannot_be(mine: Path) -> None:
    (fault,) = faults_of(mine, "stages=[{kind: qat}, {kind: prune}]")
    assert fault.startswith("stages[1]: 'prune' works on a float model")
    assert fault.endswith("put it before 'qat'")
    (fault,) = faults_of(mine, "stages=[{kind: qat}, {kind: qat}]")
    assert fault.endswith("use it once")


def test_a_recipe_made_in_python_is_checked_too() -> None:
    with pytest.raises(ValidationError, match="put it before 'qat'"):
        Recipe(name="mine", stages=(QatConfig(), PruneConfig()))


def test_a_recipe_can_not_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_recipe("mobile").seed = 3  # type: ignore[misc]


# --- where recipes are found -----------------------------------------------------------------------------


def test_names_are_found_at_the_user_s_then_in_the_package_and_never_taken_by_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    shipped = find_recipe("mobile")
    users, local = tmp_path / "config/edgekit/recipes/mobile.yaml", tmp_path / "recipes/mobile.yaml"
    for path, description in ((local, "the folder's"), (users, "the user's")):
        path.parent.mkdir(parents=True)
        path.write_text(f"description: {description}\n{MINIMAL}")
        assert (load_recipe("mobile").description == description) is (path == users)
    assert load_recipe(shipped).description not in ("the user's", "the folder's")
    assert len([info for info in list_recipes() if info.name == "mobile"]) == 1


def test_a_file_without_a_name_is_called_like_itself(mine: Path) -> None:
    assert load_recipe(mine).name == "mine"
    assert load_recipe(str(mine)).name == "mine"


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match="unknown recipe 'mobil', did you mean 'mobile'"):
        load_recipe("mobil")
    with pytest.raises(RecipeError, match="known: gpu, microcontroller, mobile"):
        load_recipe("zzzzzz")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe file"):
        load_recipe(tmp_path / "none.yaml")


def test_one_bad_recipe_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/bad.yaml").write_text("stages: 3")
    infos = {info.name: info for info in list_recipes()}
    assert infos["bad"].fault == "stages: must be a list, got 3"
    assert not infos["mobile"].fault


def test_stage_configurations_survive_a_dump_in_full() -> None:
    """Serialized by their own class, not by StageConfig, which would drop everything but ``kind``."""
    recipe = Recipe(name="x", stages=(PruneConfig(speedup=3), QatConfig()))
    assert "speedup: 3.0" in dump(recipe)
    assert set(StageConfig.model_fields) == {"kind"}
