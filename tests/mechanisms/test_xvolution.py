"""X-volution's merged form against the two branches that it is made from."""

from __future__ import annotations

import pytest
import torch

from attnprof.mechanisms.spatial.xvolution import XVolution, merged
from tests.catalogue import fill


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("directions", "shift", "depth"), [(8, 1, 1), (4, 2, 1), (2, 1, 2)])
def test_the_merged_module_is_the_trained_one_in_eval(directions: int, shift: int, depth: int, dtype: torch.dtype) -> None:
    trained = XVolution(16, 3, directions, shift, depth)
    fill(trained.to(dtype)).eval()
    deployed = merged(trained)
    x = torch.randn(2, 16, 7, 5, dtype=dtype, generator=torch.Generator().manual_seed(0))
    tolerance = 1e-12 if dtype is torch.float64 else 1e-5
    torch.testing.assert_close(deployed(x), trained(x), rtol=tolerance, atol=tolerance)
    assert sum(p.numel() for p in deployed.parameters()) < sum(p.numel() for p in trained.parameters())
    with pytest.raises(ValueError, match="merged already"):
        merged(deployed)
