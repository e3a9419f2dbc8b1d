"""How many elements the outputs of convolutions, linear layers and products have in one forward pass: what fvcore's
ActivationCountAnalysis, timm and the papers after "Designing Network Design Spaces" (CVPR 2020, section 3) call activations.

An output of normalisation, of an activation function or of an element-wise operation is none of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from attnprof import mechanisms
from attnprof.profiling import instantiate, loading
from attnprof.records import Case, Outputs

_LAYERS = ("convolution", "_convolution", "addmm", "linear")  # one operand is a weight
_PRODUCTS = ("mm", "bmm", "baddbmm", "matmul")  # as well, where one is; two activations otherwise
_ATTENTION = "_scaled_dot_product"


def outputs_of(case: Case) -> Outputs:
    """The elements of a case's outputs, without data."""
    from attnprof.profiling.counting.tracer import Tracer

    mechanism = loading.load(case)
    module = instantiate.build_on_meta(mechanism, case, Tracer()).eval()
    dtype = instantiate.DTYPES[case.dtype]
    given = [instantiate.meta_input(spec, dtype, False) for spec in mechanisms.input_specs(mechanism, case.shape, case.args)]
    whole = instantiate.without_data(module)
    kept = instantiate.attributes_kept(module) if whole else instantiate.swapped(module, instantiate.to_meta)
    with kept, torch.no_grad(), Tracer(), _Counting(module) as counting:  # the tracer makes what the ops return
        module(*given)
    return Outputs(counting.layers, counting.products)


class _Counting(TorchDispatchMode):
    """Adds up elements of outputs, of layers and of products of two activations."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights = {tensor.untyped_storage()._cdata for tensor in module.parameters()}
        self.layers = self.products = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """As for a Tracer."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """The op itself; what it returns is counted."""
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in _LAYERS or (name in _PRODUCTS and self._weighs(args)):
            self.layers += out.numel()
        elif name in _PRODUCTS:
            self.products += out.numel()
        elif name.startswith(_ATTENTION):
            query, key = args[:2]  # (..., N, d), (..., M, d): the logits and what is mixed by them
            self.products += query.shape[:-1].numel() * key.shape[-2] + out[0].numel()
        return out

    def _weighs(self, args: tuple[Any, ...]) -> bool:
        """Whether an operand is a parameter or a view of one."""
        return any(isinstance(each, Tensor) and each.untyped_storage()._cdata in self.weights for each in args)
