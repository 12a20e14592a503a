"""What is known beforehand about single ops in the two runtimes: the one table that predictions go by.

Where it comes from: what is refused, and what recurrent and 3-D layers become, from tiny models with one op
each, exported, loaded and run (ONNX Runtime 1.31, ai-edge-litert 2.3); kernels, from ONNX Runtime's own list
of them with their types and from LiteRT's specification of int8 ops. An op that isn't in the table has
nothing against it: what it becomes is decided by the placement of quantisers alone.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KNOWN", "PREDICTED", "UNROLLED", "Rule", "rule_of"]

PREDICTED = ("onnxruntime", "litert")


@dataclass(frozen=True)
class Rule:
    """What one kind of op lacks, by runtime, and a way out.

    ``floats``: it runs, but in float, for this reason. ``refuses``: no file, or none that the runtime loads.
    """

    way_out: str
    floats: tuple[str, str] = ("", "")  # in the order of PREDICTED
    refuses: tuple[str, str] = ("", "")

    def reason(self, runtime: str) -> str:
        """Why the op doesn't compute on integers there; "" if nothing is known against it."""
        index = PREDICTED.index(runtime)
        return self.refuses[index] or self.floats[index]

    def refused_by(self, runtime: str) -> bool:
        """Whether a model with this op has no file for that runtime."""
        return bool(self.refuses[PREDICTED.index(runtime)])


def rule_of(op: str) -> Rule | None:
    """The rule for an op by its ATen name without overload ("layer_norm"); None: nothing against it."""
    return _TABLE.get(op.removesuffix("_"))


def _both(text: str) -> tuple[str, str]:
    return text, text


_LEAVE = "leave it in float: it multiplies little"
_NORM = Rule(
    f"{_LEAVE}; batch norm behind a convolution would be folded into it",
    floats=_both("no integer kernel for this normalisation"),
)
_NO_RECURRENCE = "leave it in float, or replace it by 1-D convolutions or attention"
UNROLLED = "the converter unrolls it over time, in float"
_GRU = Rule(
    "nn.LSTM has an integer kernel there; or leave it: its weights are int8 in the file",
    floats=("the kernel is float, on int8 weights that are widened when the file is loaded", ""),
)
_RNN = Rule(_NO_RECURRENCE, floats=("the exporter unrolls it over time, in float", UNROLLED))
_ACTIVATION = "leave it in float: it multiplies nothing, but costs a conversion on each side; relu costs none"
_NO_ORT = "no integer kernel for this activation"
_ONE_SIDED = Rule(_ACTIVATION, floats=(_NO_ORT, ""))
_TWO_SIDED = Rule(_ACTIVATION, floats=_both(_NO_ORT))
_SORTING = Rule(
    "return the scores, and do it behind the model",
    floats=("no integer kernel", ""),
    refuses=("", "LiteRT has no kernel for what it is converted to (STABLEHLO_SORT)"),
)
_3D = Rule(
    "leave it in float in LiteRT, or split it into 2-D convolutions",
    floats=("", "CONV_3D has a float kernel alone"),
)
_FUNCTION = Rule(
    _LEAVE, floats=("no integer kernel for this function", "edgekit leaves this function in float")
)

_TABLE: dict[str, Rule] = {
    "gru": _GRU,
    **dict.fromkeys(("rnn_tanh", "rnn_relu"), _RNN),
    **dict.fromkeys(
        ("layer_norm", "native_layer_norm", "rms_norm", "group_norm", "native_group_norm", "instance_norm"),
        _NORM,
    ),
    **dict.fromkeys(("tanh", "hardswish", "gelu", "elu", "prelu"), _ONE_SIDED),
    **dict.fromkeys(("hardsigmoid", "mish", "softplus", "selu", "celu", "log_sigmoid"), _TWO_SIDED),
    **dict.fromkeys(("topk", "sort", "argsort"), _SORTING),
    "conv3d": _3D,
    "conv_transpose3d": Rule(
        "leave it in float, or enlarge by interpolation and a 3-D convolution",
        floats=_both("transposed 3-D convolutions have float kernels alone"),
    ),
    **dict.fromkeys(
        (
            "exp",
            "log",
            "sqrt",
            "rsqrt",
            "erf",
            "pow",
            "sin",
            "cos",
            "log_softmax",
            "cumsum",
            "div",
            "reciprocal",
        ),
        _FUNCTION,
    ),
    **dict.fromkeys(
        ("grid_sampler", "upsample_bicubic2d"),
        Rule(
            "leave it in float, or use bilinear interpolation",
            floats=("no integer kernel for this interpolation", "converted to about 90 float ops"),
        ),
    ),
    **dict.fromkeys(
        ("fft_rfft", "fft_fft", "stft"),
        Rule("compute spectra in preprocessing", floats=_both("no integer kernel for Fourier transforms")),
    ),
    "embedding_bag": Rule(
        "sum the rows of an nn.Embedding in forward()",
        refuses=("torch's ONNX exporter writes a wrong loop for it", "the converter has no lowering for it"),
    ),
    "adaptive_max_pool2d": Rule(
        "choose an output size that divides the input's, or max_pool2d",
        refuses=_both("no conversion for windows of unequal sizes"),
    ),
    **dict.fromkeys(
        ("cdist", "_cdist_forward"),
        Rule(
            "spell the distance as differences, squares and sums",
            floats=("", "no integer kernel"),
            refuses=("torch's ONNX exporter has no conversion for it", ""),
        ),
    ),
    "bilinear": Rule(
        "use torch.einsum, or a linear layer on the products",
        floats=("no integer kernel", ""),
        refuses=("", "the converter has no lowering for it"),
    ),
    "col2im": Rule(
        "use conv_transpose2d with a fixed weight, or pixel_shuffle",
        floats=("no integer kernel", ""),
        refuses=("", "LiteRT's scatter kernel doesn't take what it is converted to"),
    ),
}
KNOWN = tuple(_TABLE)
