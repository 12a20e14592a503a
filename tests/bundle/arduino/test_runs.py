"""Whole runs: the demo, the CIFAR-10 ResNet-20, and the DS-CNN keyword spotter."""

import re
import shutil

import numpy as np
import pytest
import torch

from edgekit.bundle import c99
from edgekit.bundle.answering import Answerer
from edgekit.bundle.gathering import gather
from edgekit.bundle.targets import load
from edgekit.bundle.targets.base import Settings
from edgekit.devices.device import load_device
from edgekit.formats.litert import tflm
from edgekit.opening import load_workload
from tests.bundle.arduino.compiling import STRICT, run, write

needs_wheel = pytest.mark.skipif(not tflm.available(), reason="tflite-micro is not installed")


def _bundle(contents, folder):
    files = load("arduino").files(contents, Settings(load_device("mcu-cortex-m4")))
    write(folder / "bundle", files)
    (folder / "scratch").mkdir()
    return load("arduino").try_out(folder / "bundle", folder / "scratch"), folder / "bundle"


def _answers(bundle, folder, samples, output):
    """What the compiled C99 gives for raw samples: (N, …) in the output's type."""
    build = shutil.copytree(bundle, folder / "built") / "extras/host"
    run(["make", "CFLAGS=-O3", "predict"], build)
    samples.tofile(folder / "samples.bin")
    run([build / "predict", folder / "samples.bin", folder / "outputs.bin"], build)
    return np.fromfile(folder / "outputs.bin", np.dtype(output.dtype)).reshape(
        len(samples), *output.shape[1:]
    )


def _reference(path, inputs):
    """The same of LiteRT's reference kernels, for arranged inputs."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    kind = litert.OpResolverType.BUILTIN_REF
    interpreter = litert.Interpreter(str(path), experimental_op_resolver_type=kind, num_threads=1)
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for one in inputs:
        interpreter.set_tensor(given["index"], one[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(made["index"])[0])
    return np.stack(found)


@needs_wheel
def test_the_demo_in_plain_c_is_as_accurate_as_its_file(contents_litert, tmp_path):
    tried, bundle = _bundle(contents_litert, tmp_path)
    assert tried.passed, tried.told
    validation = load_workload(None).validation
    answers = _answers(bundle, tmp_path, validation.inputs.numpy(), contents_litert.output)
    accuracy = float((answers.argmax(1) == validation.targets.numpy()).mean())
    # Kernels of another CPU may decide one sample of 596 the other way.
    assert accuracy == pytest.approx(contents_litert.accuracy, abs=1.01 / len(validation.targets))


@pytest.mark.data
@needs_wheel
def test_resnet20_in_plain_c_is_as_accurate_as_its_file(resnet20, resnet20_run, tmp_path):
    """On 1,000 validation images: LiteRT's reference kernels to the last bit, from raw pixels on.

    LiteRT's fast kernels round otherwise: an image whose two best classes are a step apart may fall to
    either side there.
    """
    contents = gather(resnet20_run, resnet20, formats=("litert",), precisions=("int8",))
    tried, bundle = _bundle(contents, tmp_path)
    assert tried.passed, tried.told
    loaded = load_workload(resnet20)
    images, labels = loaded.validation.inputs[:1000], loaded.validation.targets[:1000].numpy()
    answers = _answers(bundle, tmp_path, images.numpy(), contents.output)
    file = Answerer(resnet20_run / "artifacts" / contents.model.name, "litert")
    inputs = file.arranged(loaded.preprocessing(images).numpy())
    wanted = _reference(bundle / "extras/model" / "cifar10_resnet20.tflite", inputs)
    np.testing.assert_array_equal(answers, wanted)
    fast = file.outputs(inputs)
    correct, correct_fast = ((one.argmax(1) == labels).mean() for one in (answers, fast))
    assert correct == pytest.approx(correct_fast, abs=0.0031)


@pytest.mark.slow
def test_the_keyword_spotter_needs_no_heap_and_tells_its_ram(tmp_path):
    """DS-CNN with random weights: the size of its memory doesn't depend on them."""
    from edgekit.formats.exporting import export
    from edgekit.graph.capture import capture
    from edgekit.int8.calibration import calibrate
    from tests.models import CASES, inputs

    case = CASES["ds_cnn"]
    torch.manual_seed(0)
    graph = calibrate(capture(case.build().eval(), inputs(case, 1)), [inputs(case, 8, 1)])
    path = tmp_path / "ds_cnn.tflite"
    export(graph, inputs(case, 1), path, format="litert", precision="int8", metadata={})
    made = c99.generate(path, prefix="ds_cnn")
    (tmp_path / "ds_cnn.h").write_text(made.header)
    (tmp_path / "ds_cnn.c").write_text(made.source)
    run(["cc", *STRICT, "-c", "-o", "ds_cnn.o", "ds_cnn.c"], tmp_path)
    wanted = set(re.findall(r" U (\w+)", run(["nm", "ds_cnn.o"], tmp_path)))
    assert wanted <= {"memcpy", "memset", "memmove", "__stack_chk_fail"}
    # Nothing writable of its own: what it needs is the arena that it is given.
    assert not re.findall(r" [bBdDC] (\w+)", run(["nm", "ds_cnn.o"], tmp_path))
    assert made.floor_bytes <= made.arena_bytes < 20_000
    if tflm.available():
        assert made.arena_bytes < tflm.arena_bytes(path, at_least=made.floor_bytes)
