"""A net rewritten for inference on a CPU: batch norms folded, ReLUs (ReLU6 too) and sums fused into convolutions, weights laid out once.

Eager PyTorch re-orders a convolution's weights on every call and writes every intermediate map to memory twice. Here
the traced graph calls oneDNN's fused convolutions directly: what TorchInductor emits, without a compiler at run time.
"""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any, Final, cast

import torch
import torch.fx
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn.utils.fusion import fuse_conv_bn_eval

_ADDITIONS: Final = (operator.add, operator.iadd, torch.add)
_RELUS: Final = (torch.relu, torch.nn.functional.relu)
_POST_OPS: Final[dict[str, list[float]]] = {"none": [], "relu": [], "hardtanh": [0.0, 6.0]}
"""oneDNN's name of what follows a convolution, with its bounds; ReLU6 is its hard tangent from 0 to 6."""


class PackedConv(nn.Module):
    """A convolution with weights in oneDNN's own layout, and what follows it in the same pass."""

    def __init__(self, conv: nn.Conv2d, *, input_size: torch.Size, dtype: torch.dtype) -> None:
        """Lay out the weights for inputs like `input_size` (B, C, H, W); other batch sizes work as well."""
        super().__init__()
        self._shape = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        weight = conv.weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self._shape, list(input_size))
        self._bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.post = "none"

    def forward(self, x_BCHW: Tensor, added_BCHW: Tensor | None = None) -> Tensor:
        """The convolution of `x_BCHW`, plus `added_BCHW`, then what `post` names."""
        padding, stride, dilation, groups = self._shape
        where = (padding, stride, dilation, groups)
        if added_BCHW is None:
            result = torch.ops.mkldnn._convolution_pointwise(x_BCHW, self._weight, self._bias, *where, self.post, _POST_OPS[self.post], "")
        else:
            post = None if self.post == "none" else self.post
            result = torch.ops.mkldnn._convolution_pointwise.binary(
                x_BCHW, added_BCHW, self._weight, self._bias, *where, "add", 1.0, post, _POST_OPS[self.post], None
            )
        return cast("Tensor", result)


def pack(net: nn.Module, example_BCHW: Tensor, *, dtype: torch.dtype) -> nn.Module | None:
    """Rewrite a copy of `net`; None when its graph cannot be followed (Python that branches on values).

    Args:
        net: in eval mode, fp32, on the CPU.
        example_BCHW: float input as the net will see it.
        dtype: of weights and activations.

    Raises:
        RuntimeError: this processor has no layout for weights of `dtype`.
    """
    try:
        graph = torch.fx.symbolic_trace(net)
    except (torch.fx.proxy.TraceError, TypeError, RuntimeError):
        return None
    with torch.no_grad():
        _fold_batch_norms(graph)
        sizes = _shapes(graph, example_BCHW)
        for node in list(graph.graph.nodes):
            conv = _module(graph, node)
            if isinstance(conv, nn.Conv2d) and _is_plain(conv) and _num_calls(graph)[str(node.target)] == 1:
                input_size = sizes[node.args[0].name]
                _replace(graph, str(node.target), PackedConv(conv, input_size=input_size, dtype=dtype))
        _fuse_relus(graph)
        _fuse_sums(graph, sizes)
        _fuse_relus(graph)
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    graph.recompile()
    return graph.to(dtype).eval().requires_grad_(False)


def _fold_batch_norms(graph: GraphModule) -> None:
    calls = _num_calls(graph)
    for node in list(graph.graph.nodes):
        norm = _module(graph, node)
        before = node.args[0] if node.args else None
        if not isinstance(norm, nn.BatchNorm2d) or not isinstance(before, Node) or len(before.users) != 1:
            continue
        conv = _module(graph, before)
        if isinstance(conv, nn.Conv2d) and calls[str(before.target)] == calls[str(node.target)] == 1:
            _replace(graph, str(before.target), fuse_conv_bn_eval(conv, norm))
            _bypass(graph, node, before)


def _fuse_relus(graph: GraphModule) -> None:
    for node in list(graph.graph.nodes):
        post = _post_op(graph, node)
        before = node.args[0] if post != "none" else None
        if isinstance(before, Node) and len(before.users) == 1:
            conv = _module(graph, before)
            if isinstance(conv, PackedConv) and conv.post == "none":
                conv.post = post
                _bypass(graph, node, before)


def _post_op(graph: GraphModule, node: Node) -> str:
    """What the node would be behind a convolution."""
    module = _module(graph, node)
    if isinstance(module, nn.ReLU6):
        return "hardtanh"
    return "relu" if isinstance(module, nn.ReLU) or (node.op == "call_function" and node.target in _RELUS) else "none"


def _fuse_sums(graph: GraphModule, sizes: dict[str, torch.Size]) -> None:
    """`conv(x) + y` in one pass. The fused node stands where the sum stood: there `y` is known."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target not in _ADDITIONS or len(node.args) != 2 or node.kwargs:
            continue
        first, second = node.args
        for conv, other in ((first, second), (second, first)):
            if not isinstance(conv, Node) or not isinstance(other, Node) or conv is other:
                continue
            packed = _module(graph, conv)
            is_free = isinstance(packed, PackedConv) and packed.post == "none" and len(conv.users) == 1 and len(conv.args) == 1
            if is_free and conv.name in sizes and sizes[conv.name] == sizes.get(other.name):
                with graph.graph.inserting_before(node):
                    fused = graph.graph.call_module(str(conv.target), (conv.args[0], other))
                sizes[fused.name] = sizes[conv.name]
                _bypass(graph, node, fused)
                graph.graph.erase_node(conv)
                break


def _shapes(graph: GraphModule, example_BCHW: Tensor) -> dict[str, torch.Size]:
    """Shape of every tensor of the graph, by node name."""
    shapes: dict[str, torch.Size] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, Tensor):
                shapes[n.name] = result.shape
            return result

    Recorder(graph).run(example_BCHW)
    return shapes


def _module(graph: GraphModule, node: Node) -> nn.Module | None:
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def _num_calls(graph: GraphModule) -> Counter[str]:
    """How often each module is called: one that is shared is left as it is."""
    return Counter(str(node.target) for node in graph.graph.nodes if node.op == "call_module")


def _is_plain(conv: nn.Conv2d) -> bool:
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _replace(graph: GraphModule, target: str, module: nn.Module) -> None:
    parent, _, leaf = target.rpartition(".")
    setattr(graph.get_submodule(parent), leaf, module)


def _bypass(graph: GraphModule, node: Node, stand_in: Node) -> None:
    node.replace_all_uses_with(stand_in)
    graph.graph.erase_node(node)
