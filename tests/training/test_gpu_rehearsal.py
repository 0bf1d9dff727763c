"""Training and prediction on a simulated GPU: results equal the CPU's, without synchronization, in few kernels."""

import copy
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from pretended_gpu import GpuTensor, PretendedGpu, needs_pretended_gpu
from toys import run_command, write_competition

from trunkfold.config.schema import Config, DataConfig, ModelConfig, Normalization, TrainConfig
from trunkfold.images.batches import FoldBalancedBatches
from trunkfold.model.backbone import Backbone, Tail, build_backbone
from trunkfold.model.ensemble import predict
from trunkfold.model.gradcam import heat_maps
from trunkfold.model.layers import merge
from trunkfold.training.lockstep import Lockstep
from trunkfold.training.setup import prepare_experiment

pytestmark = needs_pretended_gpu
FOLDS, CLASSES = 3, 4
NEAR = {"no": 1e-5, "bf16": 2e-2, "fp16": 3e-3}  # of losses, after three steps
MOST_KERNELS = {"no": 670, "bf16": 835, "fp16": 850}  # a step of three folds of test_convnext


def make_lockstep(accelerator: Accelerator, backbone: Backbone, **train: object) -> Lockstep:
    batches = FoldBalancedBatches(np.arange(24) % FOLDS, 12, seed=0, accelerator=accelerator)
    config = TrainConfig(epochs=40, warmup_epochs=0, batch_size=12, **{"tail_lr": 1e-3, **train})
    return Lockstep(accelerator, config, copy.deepcopy(backbone), batches, torch.tensor([0.5, 1.0, 1.5, 1.0]))


def make_backbone(**model: object) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(ModelConfig(name="test_convnext", pretrained=False, **model), CLASSES, load_weights=False)


def make_batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    photos = torch.randint(0, 256, (12, 64, 64, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)
    return photos, torch.randint(0, CLASSES, (12,), generator=generator)


def thorough(*values: object) -> object:
    """A case that the short form of the rehearsal leaves out."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("tune", "precision", "options"),
    [
        ("block", "no", {}),
        ("block", "bf16", {"ema_decay": 0.9}),
        ("block", "fp16", {}),
        *[thorough(tune, precision, {}) for tune in ("adapters", "all") for precision in NEAR],
        *[
            thorough("block", "fp16", {"optimizer": name})
            for name in ("sgd", "momentum", "lamb", "lion", "nadamw", "adagrad", "lookahead_adamw")
        ],
    ],
)
def test_steps_are_those_of_the_cpu_and_wait_for_nothing(tune, precision, options):
    backbone, (photos, targets) = make_backbone(tune=tune), make_batch()
    cpu = make_lockstep(Accelerator(cpu=True), backbone, **options)
    expected = [cpu.step(photos, targets) for _ in range(3)]
    AcceleratorState._reset_state(reset_partial_state=True)
    with PretendedGpu() as gpu:
        lockstep = make_lockstep(Accelerator(mixed_precision=precision), backbone, **options)
        batch = [part.to("cuda") for part in (photos, targets)]
        found = [lockstep.step(*batch) for _ in range(3)]
        gpu.forget()
        lockstep.step(*batch)
        kernels, waits, transfers = (sum(c.values()) for c in (gpu.kernels, gpu.waits, gpu.transfers))
        found = [losses.cpu() for losses in found]
    for ours, losses in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, losses, rtol=NEAR[precision], atol=NEAR[precision])
    assert lockstep.pieces == 1
    if options.get("optimizer") is None:  # the scaler asks for what other optimizers' kernels skip by themselves
        assert (waits, transfers) == (0, 0), (gpu.waits, gpu.transfers)
        assert kernels <= MOST_KERNELS[precision]


@pytest.mark.parametrize(
    "optimizer", ["momentum", *map(thorough, ("sgd", "nesterov", "adamw", "lamb", "nadamw", "lookahead_sgd"))]
)
def test_a_step_that_overflows_is_not_taken(optimizer):
    """Loss scaling begins too high on purpose, and no memory is zero that was not zeroed."""
    fill = lambda make: lambda like, *args, **kwargs: make(like, *args, **kwargs).fill_(1e6)  # noqa: E731
    with PretendedGpu(), mock.patch.object(torch, "empty_like", fill(torch.empty_like)):
        accelerator = Accelerator(mixed_precision="fp16")
        accelerator.scaler._init_scale = 2.0**20
        lockstep = make_lockstep(accelerator, make_backbone(), optimizer=optimizer, tail_lr=1e-3)
        batch = [part.to("cuda") for part in make_batch()]
        losses = [lockstep.step(*batch) for _ in range(8)]
        assert accelerator.scaler.get_scale() < 2.0**20
        assert torch.isfinite(torch.stack(losses).cpu()).all()
        assert max(weight.numbers.abs().max() for weight in lockstep.learning) < 10


@pytest.mark.parametrize("precision", ["no", "fp16", thorough("bf16")])
def test_predictions_and_heat_maps_are_those_of_the_cpu(precision):
    backbone, (photos, targets) = make_backbone(), make_batch()
    members = np.arange(12)[:, None] % FOLDS == np.arange(FOLDS)

    def look(accelerator: Accelerator) -> tuple[np.ndarray, np.ndarray]:
        device = accelerator.device
        trunk = copy.deepcopy(backbone.trunk).to(device)
        tails = [merge(backbone.make_tail(seed)).to(device) for seed in range(FOLDS)]
        with accelerator.autocast():
            clean = [(np.arange(12), trunk(photos.to(device)).half())]
        return predict(accelerator, tails, members, [clean]), heat_maps(
            accelerator, trunk, tails, photos, targets, members
        )

    expected = look(Accelerator(cpu=True))
    AcceleratorState._reset_state(reset_partial_state=True)
    with PretendedGpu():
        found = look(Accelerator(mixed_precision=precision))
    np.testing.assert_allclose(found[0], expected[0], atol=NEAR[precision])
    np.testing.assert_allclose(found[1], expected[1], atol=30 * NEAR[precision])


def test_the_prediction_batch_fits_the_tail_too(monkeypatch: pytest.MonkeyPatch):
    """With all stages tuned, the trunk alone would hold any number of photos."""
    monkeypatch.setattr("gc.collect", lambda: 0)  # half a second for each try that fails
    model = ModelConfig(name="test_convnext", pretrained=False, tune="all", tune_stages=4)
    data = DataConfig(image_size=32, normalize=Normalization([0.5] * 3, [0.5] * 3))
    config = Config(data, model=model, train=TrainConfig(tail_lr=1e-3))
    labelled = SimpleNamespace(
        classes={"a": "1", "b": "2"}, fold_of_row=np.arange(50) % 5, targets=np.arange(50) % 2, pixels=None
    )

    def small_memory(tail: Tail, features: torch.Tensor) -> torch.Tensor:
        if len(features) > 100:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return features

    with PretendedGpu():
        experiment = prepare_experiment(config, labelled, Accelerator(mixed_precision="bf16"))
        monkeypatch.setattr(Tail, "forward", small_memory)
        assert 50 < experiment.source.batch_size <= 100


@pytest.mark.parametrize("capability", [thorough((7, 5)), thorough((9, 0))], ids=["T4: fp16", "H100: bf16"])
def test_the_commands_stop_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]):
    monkeypatch.chdir(tmp_path)
    root = write_competition(tmp_path / "input", sources=12, unlabelled_sources=2)
    options = {
        **{"data.root": root, "data.classes": "null", "data.image_size": 64, "data.workers": 0},
        **{"split.groups": root / "groups.csv", "split.folds": 2, "split.holdout": 0, "run.name": "toy"},
        **{"model.name": "test_convnext", "model.pretrained": "false", "model.drop_path": 0.2},
        **{"train.epochs": 1, "train.batch_size": 12, "train.ema_decay": 0.9, "train.keep": "best"},
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with PretendedGpu(capability):
        with pytest.raises(SystemExit, match="0"):
            run_command("train_folds.py", *words, "--train.max_hours", "0.000001")
        for command in (("train_folds.py", *words), ("make_submission.py",)):
            AcceleratorState._reset_state(reset_partial_state=True)
            run_command(*command)
    assert (tmp_path / "submissions/toy/submission.csv").exists()


def test_what_a_gpu_refuses_is_refused():
    """Or the rehearsal would prove nothing."""
    with PretendedGpu() as gpu:
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        with pytest.raises(RuntimeError, match="same device"):
            there + here
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        with torch.autocast("cuda", torch.float16):
            assert torch.nn.functional.linear(there, torch.ones(2, 3, device="cuda")).dtype == torch.float16
        assert isinstance(there[torch.tensor([True, False, True])], GpuTensor)
        assert gpu.transfers == {"index of index": 1}
        assert not gpu.waits
        assert there.sum().item() == 3
        assert gpu.waits == {"_local_scalar_dense": 1}
