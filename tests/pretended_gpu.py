"""A GPU that is pretended: CPU tensors that say they lie on it, and refuse to meet tensors that do not.

Real numbers flow, so whatever looks at them (masks, sizes, branches) works, which fake tensors cannot do.
"""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)


class OnGpu(torch.Tensor):
    """A tensor of the pretended GPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = GPU


class OnGpuGenerator(torch.Generator):
    """Says that it lies there, and draws on the CPU."""

    device = GPU


class PretendedGpu(TorchFunctionMode):
    """Enter it around everything; `met` counts the calls that saw tensors of the GPU."""

    def __init__(self):
        super().__init__()
        self.met = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        there = [x for x in inputs if isinstance(x, OnGpu)]
        name = getattr(func, "__name__", str(func))
        if name in ("to", "cpu"):
            wanted = torch.device("cpu") if name == "cpu" else _device_in(args[1:], kwargs)
            if wanted is not None:
                plain = args[0].as_subclass(torch.Tensor)
                rest = [a for a in args[1:] if not isinstance(a, str | torch.device)]
                moved = plain if not rest or isinstance(rest[0], torch.Tensor) else plain.to(*rest)
                return moved.as_subclass(OnGpu) if wanted.type == "cuda" else moved
        asked = kwargs.pop("device", None)
        made_there = asked is not None and torch.device(asked).type == "cuda"
        if there:
            self.met += 1
            strangers = [x for x in inputs if not isinstance(x, OnGpu) and x.ndim > 0]
            if strangers:
                raise RuntimeError(f"{name}: {len(there)} tensors of the GPU meet {len(strangers)} of the CPU")
        generator = kwargs.get("generator")
        if generator is not None and made_there != isinstance(generator, OnGpuGenerator) and not there:
            raise RuntimeError(f"{name}: the generator lies on another device than what is drawn")
        out = func(*args, **kwargs)
        if there or made_there:
            return tree_map(lambda x: x.as_subclass(OnGpu) if type(x) is torch.Tensor else x, out)
        return out


def _device_in(args, kwargs):
    """What a `.to` call asks for, or None."""
    for value in (*args, kwargs.get("device")):
        if isinstance(value, str | torch.device):
            return torch.device(value)
        if isinstance(value, torch.Tensor):
            return GPU if isinstance(value, OnGpu) else torch.device("cpu")
    return None
