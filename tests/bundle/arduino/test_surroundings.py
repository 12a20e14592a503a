"""Preprocessing, postprocessing and golden samples in C, of every kind of model; labels stay data."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.bundle import names
from edgekit.bundle.targets.arduino import making, memory, surroundings
from edgekit.bundle.targets.arduino.literals import array, number
from edgekit.errors import ExportError
from tests.bundle.arduino.compiling import compiled, run, write
from tests.bundle.made import KINDS, contents

# A "model" that knows the golden answers by heart, and prints what postprocessing makes of them.
_KNOWING = """
#include <stdio.h>
#include <string.h>
#include "{id}.h"

static int calls;
static {id}_input_t input[{ID}_INPUT_SIZE];
static {id}_output_t output[{ID}_OUTPUT_SIZE];

static int run(void *context, const {id}_input_t *in, {id}_output_t *out)
{{
    (void)context;
    (void)in;
    memcpy(out, {id}_golden_outputs[calls++], sizeof {id}_golden_outputs[0]);
    {change}
    return 0;
}}

int main(void)
{{
    {id}_report report;
    {id}_self_test(run, NULL, input, output, &report);
    printf("{{\\"failed\\": %d, \\"inputs\\": %d, \\"outputs\\": %d, ", report.failed, report.input_faults,
           report.output_faults);
    printf("\\"classes\\": %d, \\"off\\": \\"%g\\"}}\\n", report.class_faults, report.output_off);
    return 0;
}}
"""


def _sources(made, samples=3):
    looked = making._Looked(("AddMean",), 1024, 64, None, "no plain C in this test")
    needs = memory.Needs((memory.Road("TFLM", {"arena": 1024}, {"model": 1}),), 1024, samples)
    return making.sources(made, looked, needs, (), device="")


def _program(folder, made, main):
    id = names.identifier(made.name)
    write(folder, _sources(made))
    (folder / "main.c").write_text(main)
    sources = [path for path in sorted((folder / "src").glob("*.c")) if "model_data" not in path.name]
    return compiled([folder / "main.c", *sources], folder / "program", f"-I{folder / 'src'}"), id


def _report(folder, made, change=""):
    id = names.identifier(made.name)
    program, _ = _program(folder, made, _KNOWING.format(id=id, ID=id.upper(), change=change))
    return json.loads(run([program], folder))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_compiles_strictly_and_passes_its_self_test(tmp_path, kind):
    report = _report(tmp_path, contents(kind))
    assert report == {"failed": 0, "inputs": 0, "outputs": 0, "classes": 0, "off": "0"}


def test_a_wrong_answer_is_found(tmp_path):
    """Two steps off, where one is allowed; and once a class more, where it is clear."""
    report = _report(tmp_path, contents(), "out[0] = (made_image_2_0_output_t)(out[0] < 0 ? 127 : -128);")
    assert report["failed"] == report["outputs"] == 3
    assert report["classes"] >= 1


def test_not_a_number_is_found(tmp_path):
    change = "{ const float zero = 0.0f * (float)calls; out[0] = zero / zero; }"
    assert _report(tmp_path, contents("vector"), change)["failed"] == 3


def test_wrong_preprocessing_is_found(tmp_path):
    made = contents()
    golden = made.golden
    off = type(golden)(
        golden.samples, golden.inputs + np.int8(1), golden.outputs, golden.tolerance, golden.clear
    )
    report = _report(tmp_path, contents(golden=off))
    assert report["inputs"] == report["failed"] == 3


@pytest.mark.parametrize(("kind", "mode"), [("image", "table"), ("resized", "resized"), ("tokens", "copy")])
def test_the_way_to_preprocess(kind, mode):
    assert surroundings.preprocessing(contents(kind).inputs[0])["mode"] == mode


_LABELS = """
#include <stdio.h>
#include "{id}.h"

int main(void)
{{
    size_t k;
    for (k = 0; k < {ID}_CLASSES; k++) {{
        fwrite(&{id}_label_bytes[k], sizeof {id}_label_bytes[k], 1, stdout);
        fwrite({id}_labels[k], 1, {id}_label_bytes[k], stdout);
    }}
    return 0;
}}
"""


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=st.lists(st.text(max_size=30), min_size=8, max_size=8), file=st.text(max_size=30))
def test_whatever_a_class_or_file_is_called_stays_data(tmp_path, labels, file):
    import subprocess

    made = contents(classes=tuple(labels))
    made = contents(
        classes=tuple(labels), model=type(made.model)(file, "litert", "int8", b"TFL3", made.model.sha256)
    )
    id = names.identifier(made.name)
    program, _ = _program(tmp_path, made, _LABELS.format(id=id, ID=id.upper()))
    said = subprocess.run([str(program)], capture_output=True, check=True).stdout
    found = []
    while said:
        length = int.from_bytes(said[:8], "little")
        found.append(said[8 : 8 + length].decode())
        said = said[8 + length :]
    assert found == labels


@settings(max_examples=100, deadline=None)
@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float_comes_back_exactly(value):
    assert np.float32(number(value, "float32").rstrip("f")) == np.float32(value)


def test_a_value_without_a_literal_is_an_error():
    with pytest.raises(ExportError, match="no literal"):
        number(float("nan"), "float32")


def test_the_least_integer_has_a_literal():
    assert array(np.array([-(2**63), 5])) == "    (-9223372036854775807LL - 1),5LL"
