"""The networks in torch that the peers on a device run."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "unet"])
def test_folded_networks_compute_the_same_without_normalisations(name):
    """Statistics as training leaves them: with fresh ones, 0 and 1, folding would change nothing."""
    from benchmarks.architectures import ARCHITECTURES, folded

    def norms(network):
        return [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]

    torch.manual_seed(0)
    model = ARCHITECTURES[name]().eval()
    for norm in norms(model):
        for values, low, high in ((norm.running_mean, -1, 1), (norm.running_var, 0.5, 2), (norm.weight.data, 0.5, 2), (norm.bias.data, -1, 1)):  # fmt: skip
            values.uniform_(low, high)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, got = model(x), folded(copy.deepcopy(model))(x)
    assert norms(model)
    assert not norms(folded(copy.deepcopy(model)))
    # Of float32: 20 to 52 layers, in another order of sums.
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
