"""The faster linear layer computes the same function and gradients, and keeps names and weights."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from trunkfold.model import linear as module
from trunkfold.model.linear import FastLinear, linear, product, use_fast_linear


@pytest.fixture(params=[True, False], ids=["oneDNN", "MKL"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BY_CONVOLUTION", request.param)


def test_products_are_those_of_pytorch():
    a, b = torch.randn(5, 7), torch.randn(7, 3)
    torch.testing.assert_close(product(a, b), a @ b)
    torch.testing.assert_close(product(a.T.contiguous().T, b), a @ b)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 4, 7)], ids=str)
def test_results_and_gradients_are_those_of_pytorch(shape, bias):
    torch.manual_seed(0)
    tensors = [torch.randn(shape), torch.randn(3, 7), *([torch.randn(3)] if bias else [])]
    ours, theirs = ([tensor.clone().requires_grad_() for tensor in tensors] for _ in range(2))
    results = linear(*ours), F.linear(*theirs)
    assert results[0].shape == results[1].shape
    torch.testing.assert_close(*results)
    for result in results:
        result.square().sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_operations_are_counted():
    with FlopCounterMode(display=False) as counter:
        linear(torch.randn(5, 7), torch.randn(3, 7))
    assert counter.get_total_flops() == 2 * 5 * 7 * 3


def test_rows_that_lie_apart_in_memory_are_taken_in_their_order():
    x, weight = torch.randn(2, 7, 5, 4), torch.randn(3, 7)
    apart = x.permute(0, 2, 3, 1)
    torch.testing.assert_close(linear(apart, weight), F.linear(apart, weight))


def test_a_model_keeps_its_function_names_and_weights():
    model = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Sequential(nn.Linear(6, 2)), nn.Bilinear(2, 2, 1))
    before, x = copy.deepcopy(model), torch.randn(3, 4)
    use_fast_linear(model)
    assert isinstance(model[0], FastLinear)
    assert isinstance(model[2][0], FastLinear)
    assert list(model.state_dict()) == list(before.state_dict())
    torch.testing.assert_close(model[:3](x), before[:3](x))


def test_exported_graphs_hold_no_operation_of_one_library():
    program = torch.export.export(FastLinear(7, 3), (torch.randn(2, 7),))
    assert "mkldnn" not in str(program.graph)
    assert program.module()(torch.ones(2, 7)).shape == (2, 3)


@pytest.mark.parametrize(
    ("about", "chosen"),
    [
        ("vendor_id : AuthenticAMD\nflags : avx2 avx512f", True),
        ("vendor_id : AuthenticAMD\nflags : avx2", False),  # MKL is faster there
        ("vendor_id : GenuineIntel\nflags : avx2 avx512f", False),
    ],
    ids=["AMD with AVX-512", "AMD without", "Intel"],
)
def test_onednn_is_chosen_on_amd_processors_with_avx512(about, chosen, monkeypatch):
    monkeypatch.setattr(module.Path, "read_text", lambda path: about)
    assert module._is_amd_with_avx512() is chosen
