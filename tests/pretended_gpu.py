"""A simulated GPU: tensors that report the device cuda:0 but are computed on the CPU.

PyTorch dispatches as on a GPU: autocast types, loss scaling, fused and multi-tensor kernels. Operations that a GPU
rejects are rejected, and operations that are expensive there are counted. Only the autograd engine, which would query
the driver for its streams, is replaced by `backward`.

    with PretendedGpu() as gpu:
        lockstep.step(photos, targets)
    assert not gpu.waits

With `numbers="meta"`, tensors have shapes but no values, so that the launches of a large model are counted in seconds.
"""

from collections import Counter
from contextlib import ExitStack
from importlib import import_module
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
import torch._dynamo  # before functions are replaced that it looks up when it is imported
from torch.autograd.graph import get_gradient_edge
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

needs_pretended_gpu = pytest.mark.skipif(
    not hasattr(torch._C, "_ensureCUDADeviceGuardSet") or not hasattr(torch._C, "_set_only_lift_cpu_tensors"),
    reason="this release of PyTorch cannot pretend a GPU",
)
HALVES = (torch.float16, torch.bfloat16)
MEMORY = 80 << 30
COPIES = ("_to_copy", "copy_")  # what may see two devices
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_")  # whose indices may be on the CPU, and are sent
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "_unique2", "is_nonzero")
WITHOUT_KERNEL = ("empty", "detach", "alias", "lift_fresh", "set_", "_unsafe_view")
NO_CPU_KERNEL = ("not implemented for", "could not create a primitive")  # of halves
RANDOM = ("bernoulli", "rand", "normal", "uniform", "dropout")


class GpuTensor(torch.Tensor):
    """A tensor that says cuda:0; `numbers` holds them."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers: torch.Tensor) -> "GpuTensor":
        strides, offset = numbers.stride(), numbers.storage_offset()
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, numbers.shape, strides=strides, storage_offset=offset, dtype=numbers.dtype, device="cuda:0"
        )
        tensor.numbers = numbers
        return tensor

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} on a tensor of a pretended GPU that is not there any more")

    @property
    def data(self) -> "GpuTensor":
        return GpuTensor(self.numbers.detach())

    @data.setter
    def data(self, other: "GpuTensor") -> None:
        assert isinstance(other, GpuTensor), "a parameter's data may not move to another device"
        self.numbers = other.numbers.detach()

    def __deepcopy__(self, memo: dict) -> "GpuTensor":
        if id(self) not in memo:
            memo[id(self)] = GpuTensor(self.numbers.detach().clone()).requires_grad_(self.requires_grad)
            memo[id(self)]._is_param = getattr(self, "_is_param", False)
        return memo[id(self)]

    def data_ptr(self) -> int:
        return self.numbers.data_ptr()

    def untyped_storage(self):
        return self.numbers.untyped_storage()

    def tolist(self) -> list:
        return self.cpu().tolist()

    def numpy(self, *args: object, **kwargs: object):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy

    def __repr__(self, **kwargs: object) -> str:
        return f"GpuTensor({self.numbers})"


class PretendedGpu(TorchDispatchMode):
    """While this is entered, PyTorch finds one GPU.

    Attributes:
        kernels: Operations that launch at least one kernel, by name.
        waits: What makes the processor wait until the GPU has done all that it was given.
        transfers: Copies between the devices.
    """

    def __init__(self, capability: tuple[int, int] = (8, 0), numbers: str = "cpu") -> None:
        """Choose the compute capability, and the device of the numbers: "cpu" or "meta"."""
        super().__init__()
        self.capability, self.numbers = capability, numbers
        self.kernels, self.waits, self.transfers = Counter(), Counter(), Counter()
        self.random = torch.Generator().manual_seed(0).get_state()

    def forget(self) -> None:
        """Begin to count anew."""
        for counted in (self.kernels, self.waits, self.transfers):
            counted.clear()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        from_gpu = any(isinstance(tensor, GpuTensor) for tensor in tensors)
        device = kwargs.get("device")
        to_gpu = from_gpu if device is None else torch.device(device).type == "cuda"
        if not from_gpu and not to_gpu:
            return function(*args, **kwargs)
        name = function._schema.name.partition("::")[2]
        self._refuse_strangers(name, args, tensors, from_gpu)
        self._count(name, function.is_view, args, from_gpu, to_gpu)
        if device is not None:
            kwargs["device"] = self.numbers if to_gpu else "cpu"
        kwargs.pop("pin_memory", None)
        numbers = tree_map_only(GpuTensor, lambda tensor: tensor.numbers, (args, kwargs))
        found = self._compute(name, function, *numbers, on_gpu=to_gpu)
        if name == "copy_":
            return args[0]
        if not to_gpu:
            return found
        found = tree_map_only(torch.Tensor, GpuTensor, found)
        return return_and_correct_aliasing(function, args, kwargs, found) if from_gpu else found

    def _compute(self, name: str, function, args: tuple, kwargs: dict, on_gpu: bool):
        if on_gpu and any(word in name for word in RANDOM):  # the GPU's random numbers are not the CPU's
            before = torch.get_rng_state()
            torch.set_rng_state(self.random)
            try:
                return function(*args, **kwargs)
            finally:
                self.random = torch.get_rng_state()
                torch.set_rng_state(before)
        if name in ("_softmax", "_log_softmax") and args[2]:  # half in, float out: a CPU has no such kernel
            args = (args[0].float(), args[1], False)
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            halves = [leaf.dtype for leaf in tree_leaves((args, kwargs)) if getattr(leaf, "dtype", None) in HALVES]
            if not halves or not any(words in str(error) for words in NO_CPU_KERNEL):
                raise
        widened = tree_map_only(
            torch.Tensor, lambda tensor: tensor.float() if tensor.dtype in HALVES else tensor, (args, kwargs)
        )
        found = function(*widened[0], **widened[1])
        return tree_map_only(torch.Tensor, lambda tensor: tensor.to(halves[0]), found)

    def _refuse_strangers(self, name: str, args: tuple, tensors: list, from_gpu: bool) -> None:
        strangers = [tensor for tensor in tensors if not isinstance(tensor, GpuTensor) and tensor.dim() > 0]
        if not from_gpu or not strangers or name in COPIES:
            return
        if (
            name in INDEXED
            and isinstance(args[0], GpuTensor)
            and all(isinstance(t, GpuTensor) or t.dim() == 0 for t in args[2:3])
        ):
            self.transfers[f"index of {name}"] += 1
            return
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu ({name})")

    def _count(self, name: str, is_view: bool, args: tuple, from_gpu: bool, to_gpu: bool) -> None:
        if from_gpu and name in WAITING:
            self.waits[name] += 1
        if name in INDEXED and any(isinstance(index, GpuTensor) and index.dtype == torch.bool for index in args[1]):
            self.waits[f"mask of {name}"] += 1
        if name == "_to_copy" and from_gpu != to_gpu:
            self.transfers["to the CPU" if from_gpu else "to the GPU"] += 1
        if name == "copy_" and isinstance(args[0], GpuTensor) != isinstance(args[1], GpuTensor):
            self.transfers["to the GPU" if isinstance(args[0], GpuTensor) else "to the CPU"] += 1
        if to_gpu and not is_view and not name.startswith(WITHOUT_KERNEL):
            self.kernels[name] += 1

    def __enter__(self) -> "PretendedGpu":
        torch._C._ensureCUDADeviceGuardSet()
        self.replaced = ExitStack()
        replace = lambda target, name, value: self.replaced.enter_context(mock.patch.object(target, name, value))  # noqa: E731
        for name, value in self._driver().items():
            replace(torch.cuda, name, value)
        replace(torch.autograd, "_engine_run_backward", backward)
        replace(torch, "Generator", _CpuGenerator)
        replace(torch.Tensor, "pin_memory", lambda tensor, *device: tensor)  # only a driver can
        for module in map(
            import_module, ("torch.optim.optimizer", "torch.utils._foreach_utils")
        ):  # which knows its tensors by their class
            if hasattr(module, "_foreach_supported_types"):
                replace(module, "_foreach_supported_types", [*module._foreach_supported_types, GpuTensor])
        self._switch(
            torch.__future__.get_swap_module_params_on_conversion, torch.__future__.set_swap_module_params_on_conversion
        )
        self._switch(torch._C._only_lift_cpu_tensors, torch._C._set_only_lift_cpu_tensors)
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.replaced.close()

    def _switch(self, get, put) -> None:
        self.replaced.callback(put, get())
        put(True)

    def _driver(self) -> dict[str, object]:
        """What `torch.cuda` answers."""
        seed = lambda number: setattr(self, "random", torch.Generator().manual_seed(number).get_state())  # noqa: E731
        nothing = dict.fromkeys(("_lazy_init", "set_device", "empty_cache", "synchronize"), lambda *args: None)
        properties = SimpleNamespace(
            name="a pretended GPU",
            major=self.capability[0],
            minor=self.capability[1],
            total_memory=MEMORY,
            multi_processor_count=40,
            L2_cache_size=4 << 20,
        )
        answers = {
            **{"is_available": True, "device_count": 1, "current_device": 0, "is_current_stream_capturing": False},
            **{"is_bf16_supported": True, "get_device_capability": self.capability, "mem_get_info": (MEMORY, MEMORY)},
            **{"get_device_name": properties.name, "get_device_properties": properties, "max_memory_allocated": 0},
        }
        return {
            **nothing,
            **{name: lambda *args, answer=answer, **kwargs: answer for name, answer in answers.items()},
            **{"manual_seed": seed, "manual_seed_all": seed, "get_rng_state": lambda *device: self.random.clone()},
            "set_rng_state": lambda state, *device: setattr(self, "random", state.clone()),
        }


class _CpuGenerator(torch.Generator):
    """The generator that a GPU's would be."""

    def __new__(cls, device: object = "cpu"):
        return super().__new__(cls, "cpu")


_engine = torch.autograd._engine_run_backward


@torch.no_grad()
def backward(
    outputs, gradients, keep_graph=False, create_graph=False, inputs=(), allow_unreachable=True, accumulate_grad=True
):
    """What the autograd engine does, for first derivatives: add up what reaches each node, then call it.

    Gradients are cast, and refused on the wrong device, as the engine does.
    """
    if not any(isinstance(output, GpuTensor) for output in outputs):
        options = {"allow_unreachable": allow_unreachable, "accumulate_grad": accumulate_grad}
        return _engine(outputs, gradients, keep_graph, create_graph, inputs, **options)
    wanted = {(edge.node, edge.output_nr): None for edge in map(get_gradient_edge, inputs)}
    roots = [get_gradient_edge(output) for output in outputs]
    waiting, reached = _count_edges([edge.node for edge in roots]), {}
    for edge, gradient in zip(roots, gradients, strict=True):
        _give(reached, edge.node, edge.output_nr, gradient)
    ready = [node for node in {edge.node for edge in roots} if not waiting[node]]
    while ready:
        node = ready.pop()
        slots = reached.pop(node, None)
        if slots is not None:
            wanted |= {(node, place): slots[place] for place in range(len(slots)) if (node, place) in wanted}
            if hasattr(node, "variable"):
                if not inputs:
                    _accumulate(node.variable, slots[0])
            else:
                for (after, place), gradient in zip(node.next_functions, _call(node, slots), strict=True):
                    if after is not None:
                        _give(reached, after, place, gradient)
        for after, _ in node.next_functions:
            if after is not None:
                waiting[after] -= 1
                if not waiting[after]:
                    ready.append(after)
    return tuple(wanted.values())


def _count_edges(nodes: list) -> Counter:
    """How many edges lead to each node that can be reached."""
    waiting, seen = Counter(), set()
    while nodes:
        node = nodes.pop()
        if node not in seen:
            seen.add(node)
            following = [after for after, _ in node.next_functions if after is not None]
            waiting.update(following)
            nodes.extend(following)
    return waiting


def _give(reached: dict, node, place: int, gradient) -> None:
    if gradient is None:
        return
    like = node._input_metadata[place]
    if gradient.device != like.device:
        raise RuntimeError(f"{node.name()} got a gradient on {gradient.device}, expected {like.device}")
    if gradient.shape != torch.Size(like.shape):
        gradient = gradient.sum_to_size(like.shape)
    gradient = gradient.to(like.dtype)
    slots = reached.setdefault(node, [None] * len(node._input_metadata))
    slots[place] = gradient if slots[place] is None else slots[place] + gradient


def _accumulate(weight: torch.Tensor, gradient: torch.Tensor) -> None:
    total = gradient if weight.grad is None else weight.grad + gradient
    if total.stride() != weight.stride():  # fused kernels go through both as they lie in memory
        total = torch.empty_like(weight).copy_(total)
    weight.grad = total.detach()


def _call(node, slots: list) -> tuple:
    """The gradients that a node gives, one for each of its edges."""
    if not hasattr(node, "needs_input_grad"):
        found = node(*slots)
        return found if isinstance(found, tuple) else (found,)
    like = node._input_metadata  # of a function that is written in Python
    given = [
        torch.zeros(m.shape, dtype=m.dtype, device=m.device) if s is None else s
        for s, m in zip(slots, like, strict=True)
    ]
    found = node.apply(*given)
    found = iter([one for one, needed in zip(found, node.needs_input_grad, strict=False) if needed])
    return tuple(next(found) if after is not None else None for after, _ in node.next_functions)
