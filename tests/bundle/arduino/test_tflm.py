"""The arena and the answers in TensorFlow Lite for Microcontrollers itself."""

import numpy as np
import pytest

from edgekit.errors import EdgekitError, ExportError, MeasurementError, MissingExtraError
from edgekit.formats.litert import tflm
from tests.bundle.arduino.compiling import CHECK

needs_wheel = pytest.mark.skipif(not tflm.available(), reason="tflite-micro is not installed")


@pytest.fixture(scope="module")
def arena():
    return tflm.arena_bytes(CHECK, at_least=2304)


def _inputs(count):
    return np.random.default_rng(3).integers(-128, 128, (count, 16, 16, 3)).astype(np.int8)


@needs_wheel
def test_the_arena_is_the_smallest_that_works(arena):
    assert arena % tflm.ALIGNMENT == 0
    assert tflm.answers(CHECK, _inputs(1), arena).shape == (1, 4)
    with pytest.raises(MeasurementError, match="TFLM failed"):
        tflm.answers(CHECK, _inputs(1), arena - tflm.ALIGNMENT)


@needs_wheel
@pytest.mark.parametrize("hint", [300, 1 << 20])
def test_a_wrong_hint_costs_time_only(arena, hint):
    """300: half of it ends TFLM by a signal. 1 MiB: far too much."""
    assert tflm.arena_bytes(CHECK, at_least=hint) == arena


@needs_wheel
def test_answers_are_those_of_the_reference_kernels(arena):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(
        str(CHECK), experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF, num_threads=1
    )
    interpreter.allocate_tensors()
    inputs, wanted = _inputs(8), []
    for sample in inputs:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample[None])
        interpreter.invoke()
        wanted.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    np.testing.assert_array_equal(tflm.answers(CHECK, inputs, arena), np.stack(wanted))


@needs_wheel
def test_what_tflm_refuses_is_told_with_its_words(tmp_path):
    """An op that it lacks is reported at once, not searched a size for."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    content = bytearray(CHECK.read_bytes())
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for code in model.operatorCodes:
        if code.builtinCode == schema.BuiltinOperator.MEAN:
            code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SEGMENT_SUM
    import flatbuffers

    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "odd.tflite"
    path.write_bytes(bytes(builder.Output()))
    with pytest.raises(ExportError, match="refuses this file") as error:
        tflm.arena_bytes(path)
    assert "op" in error.value.got


@needs_wheel
def test_a_file_that_ends_the_process_is_an_error(tmp_path):
    path = tmp_path / "broken.tflite"
    path.write_bytes(CHECK.read_bytes()[:600])
    with pytest.raises(EdgekitError):
        tflm.arena_bytes(path)


def test_without_the_wheel_the_command_is_told(monkeypatch):
    monkeypatch.setattr(tflm, "available", lambda: False)
    with pytest.raises(MissingExtraError, match="pip install 'edgekit-toolkit\\[micro\\]'"):
        tflm.require()
