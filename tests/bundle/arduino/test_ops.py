"""The methods of TFLM's resolver, and the scratch memory of Arm's kernels."""

import re

import pytest

from edgekit.errors import ExportError
from edgekit.formats.litert import reading
from edgekit.formats.litert.tflm_ops import METHODS, cmsis_nn_scratch, resolver_methods
from tests.bundle.arduino.compiling import CHECK


def test_every_name_is_one_of_the_schema():
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    assert set(METHODS) <= set(vars(schema.BuiltinOperator))


@pytest.mark.parametrize(
    ("op", "method"),
    [
        ("CONV_2D", "AddConv2D"),
        ("DEPTHWISE_CONV_2D", "AddDepthwiseConv2D"),
        ("FULLY_CONNECTED", "AddFullyConnected"),
        ("BATCH_MATMUL", "AddBatchMatMul"),
        ("RESIZE_NEAREST_NEIGHBOR", "AddResizeNearestNeighbor"),
        ("PADV2", "AddPadV2"),
        ("RELU6", "AddRelu6"),
        ("BATCH_TO_SPACE_ND", "AddBatchToSpaceNd"),
        ("LOG_SOFTMAX", "AddLogSoftmax"),
    ],
)
def test_names_are_those_of_the_public_header(op, method):
    assert METHODS[op] == method
    assert re.fullmatch("Add[A-Z][A-Za-z0-9]+", method)


def test_each_op_is_registered_once():
    assert resolver_methods(["MEAN", "ADD", "MEAN"]) == ("AddAdd", "AddMean")


def test_all_missing_ops_are_named():
    with pytest.raises(ExportError, match="GELU, STABLEHLO_ADD") as error:
        resolver_methods(["ADD", "STABLEHLO_ADD", "GELU"])
    assert "python" in error.value.next


def test_scratch_is_that_of_the_largest_op():
    """The reference file: 3x3 convolutions, of 3 channels, and depthwise of 8."""
    described = reading.read(CHECK)
    assert cmsis_nn_scratch(described) == 2 * 3 * 3 * 8
    only = [row for row in described["tensors"] if not row["used_by"].startswith("DEPTHWISE")]
    assert cmsis_nn_scratch(described | {"tensors": only}) == 32 * 4  # 27 values in four times 8


def test_pooling_needs_a_row_of_sums():
    described = {
        "tensors": [],
        "operators": {"AVERAGE_POOL_2D": 1},
        "activations": [{"shape": [1, 4, 4, 24]}, {"shape": []}],
    }
    assert cmsis_nn_scratch(described) == 96
