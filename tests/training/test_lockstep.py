"""Lockstep training of K tails gives the same weights as training K separate models."""

import copy
from unittest import mock

import numpy as np
import pytest
import timm
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from trunkfold.config.schema import ModelConfig, TrainConfig
from trunkfold.errors import InputError, MemoryFullError
from trunkfold.images.batches import FoldBalancedBatches
from trunkfold.model.backbone import Backbone, build_backbone
from trunkfold.model.parts import trained_parameters
from trunkfold.training import gradients
from trunkfold.training.gradients import learned_shares
from trunkfold.training.lockstep import Lockstep
from trunkfold.training.optimizers import balanced_class_weights, make_optimizer, make_scheduler

FOLDS, CLASSES, STEPS = 3, 4, 6


class SeparateModel(nn.Module):
    """One fold's whole timm model with peft's own DoRA, from the same initial numbers as the fold's tail."""

    def __init__(self, config: ModelConfig, backbone: Backbone, seed: int) -> None:
        super().__init__()
        tail = backbone.make_tail(seed)
        self.model = timm.create_model(config.name, num_classes=CLASSES)
        targets = tail.peft_config["default"].target_modules
        inject_adapter_in_model(
            LoraConfig(r=config.rank, lora_alpha=32, target_modules=targets, use_dora=True), self.model
        )
        self.model.load_state_dict({**backbone.trunk.state_dict(), **tail.state_dict()})
        learning = {name for name, _ in trained_parameters(tail)}
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in learning)
        self.mean, self.std = backbone.trunk.mean, backbone.trunk.std

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        return self.model((photos.float() - self.mean) / self.std)

    def trained(self) -> dict[str, torch.Tensor]:
        return {name: p.data for name, p in self.model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("tune", ["adapters", "block", "all"])
@pytest.mark.parametrize("tune_stages", [1, 4])
def test_lockstep_equals_separate_models_on_the_same_batches(accelerator, tune, tune_stages):
    config = ModelConfig(name="test_convnext", pretrained=False, tune=tune, tune_stages=tune_stages)
    train = TrainConfig(epochs=2, batch_size=4 * FOLDS, tail_lr=1e-3, clip_grad=0.5, warmup_epochs=1)
    torch.manual_seed(0)
    backbone = build_backbone(config, CLASSES)
    fold_of_row = np.arange(12 * FOLDS) % FOLDS
    batches = FoldBalancedBatches(fold_of_row, train.batch_size, seed=0, accelerator=accelerator)
    weights = torch.tensor([0.5, 1.0, 1.5, 1.0])
    lockstep = Lockstep(accelerator, train, copy.deepcopy(backbone), batches, weights)
    separate = [SeparateModel(config, backbone, seed) for seed in range(FOLDS)]
    optimizers = [make_optimizer([model.model], train) for model in separate]
    schedules = [make_scheduler(optimizer, train, len(batches)) for optimizer in optimizers]

    for step in range(1, STEPS + 1):
        photos = torch.randint(0, 256, (train.batch_size, 3, 64, 64), dtype=torch.uint8)
        targets = torch.randint(0, CLASSES, (train.batch_size,))
        losses = lockstep.step(photos, targets)
        for fold, (model, optimizer, schedule) in enumerate(zip(separate, optimizers, schedules, strict=True)):
            own = [learned_shares(rows, FOLDS)[fold] for rows in (photos, targets)]
            loss = nn.functional.cross_entropy(
                model(own[0]), own[1], weights, reduction="none", label_smoothing=train.label_smoothing
            ).mean()
            torch.testing.assert_close(losses[fold], loss.detach(), rtol=1e-4, atol=1e-5)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.model.parameters(), train.clip_grad)
            optimizer.step()
            schedule.step_update(step)

    for tail, model in zip(lockstep.tails, separate, strict=True):
        for name, parameter in trained_parameters(tail):
            torch.testing.assert_close(parameter.data, model.trained()[name], rtol=1e-5, atol=1e-5, msg=name)
    assert not torch.allclose(lockstep.tails[0].head.fc.weight, backbone.make_tail(0).head.fc.weight)


def test_one_fold_is_an_ordinary_training_on_the_whole_batch(accelerator):
    config = ModelConfig(name="test_convnext", pretrained=False)
    train = TrainConfig(epochs=2, batch_size=5, tail_lr=1e-3, clip_grad=None, warmup_epochs=0, label_smoothing=0.0)
    torch.manual_seed(0)
    backbone = build_backbone(config, CLASSES)
    batches = FoldBalancedBatches(np.array([0, 0, *[-2] * 10]), train.batch_size, seed=0, accelerator=accelerator)
    lockstep = Lockstep(accelerator, train, copy.deepcopy(backbone), batches)
    model = SeparateModel(config, backbone, 0)
    optimizer = make_optimizer([model.model], train)
    schedule = make_scheduler(optimizer, train, len(batches))
    for step in range(1, STEPS + 1):
        photos = torch.randint(0, 256, (train.batch_size, 3, 64, 64), dtype=torch.uint8)
        targets = torch.randint(0, CLASSES, (train.batch_size,))
        losses = lockstep.step(photos, targets)
        loss = nn.functional.cross_entropy(model(photos), targets)
        torch.testing.assert_close(losses, loss.detach()[None], rtol=1e-4, atol=1e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step_update(step)
    for name, parameter in trained_parameters(lockstep.tails[0]):
        torch.testing.assert_close(parameter.data, model.trained()[name], rtol=1e-5, atol=1e-5, msg=name)


def small_lockstep(accelerator, **train) -> Lockstep:
    backbone = build_backbone(ModelConfig(name="test_convnext", pretrained=False), CLASSES, load_weights=False)
    batches = FoldBalancedBatches(np.arange(24) % FOLDS, 12, seed=0, accelerator=accelerator)
    return Lockstep(accelerator, TrainConfig(epochs=2, batch_size=12, **{"tail_lr": 1e-3, **train}), backbone, batches)


class SmallMemory(nn.Module):
    """A trunk whose device's memory holds so many photos, and which counts those that it sees."""

    def __init__(self, trunk: nn.Module, most: int) -> None:
        super().__init__()
        self.trunk, self.most, self.seen = trunk, most, []

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(photos))
        if len(photos) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return self.trunk(photos)


def learned(lockstep: Lockstep) -> list[torch.Tensor]:
    """All that a step changes: weights, averaged weights, and the optimizer's moments."""
    averaged = [] if lockstep.ema is None else list(lockstep.ema.module)
    moments = [value for state in lockstep.optimizer.state.values() for value in state.values()]
    return [tensor.detach().clone().float() for tensor in [*lockstep.learning, *averaged, *moments]]


@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("pieces", [2, 3, 5, 99])
def test_a_batch_in_pieces_is_learned_from_as_a_whole(accelerator, folds, pieces):
    """Five rows of each fold, which two and three do not divide; the norm that is clipped is that of the whole."""
    config = ModelConfig(name="test_convnext", pretrained=False, tune="all", scale=1.0)
    train = TrainConfig(epochs=4, batch_size=5 * folds, clip_grad=0.05, ema_decay=0.9, optimizer="sgd", tail_lr=0.1)
    fold_of_row = np.arange(15) % folds if folds > 1 else np.array([0, 0, *[-2] * 10])
    torch.manual_seed(0)
    backbone = build_backbone(config, CLASSES)
    whole, divided = (
        Lockstep(
            accelerator,
            train,
            copy.deepcopy(backbone),
            FoldBalancedBatches(fold_of_row, train.batch_size, 0, accelerator),
            torch.tensor([0.5, 1.0, 1.5, 1.0]),
        )
        for _ in range(2)
    )
    divided.pieces = pieces
    start = learned(whole)
    for _ in range(3):
        photos = torch.randint(0, 256, (train.batch_size, 3, 64, 64), dtype=torch.uint8)
        targets = torch.randint(0, CLASSES, (train.batch_size,))
        torch.testing.assert_close(divided.step(photos, targets), whole.step(photos, targets), rtol=1e-5, atol=1e-6)
    assert divided.steps_done == whole.steps_done == 3
    assert divided.learning_rates() == whole.learning_rates()
    for found, expected in zip(learned(divided), learned(whole), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(learned(divided)[0], start[0])


def test_pieces_hold_as_many_rows_of_each_fold(accelerator):
    lockstep = small_lockstep(accelerator)
    lockstep.pieces, seen = 3, []
    rows = torch.arange(12)
    lockstep._losses = lambda photos, targets: seen.append(targets.tolist()) or torch.zeros(FOLDS, requires_grad=True)
    lockstep._add_up_gradients(rows, rows)
    assert seen == [[0, 4, 8], [1, 5, 9], [2, 3, 6, 7, 10, 11]]


def test_a_batch_that_the_memory_cannot_hold_is_divided_once_and_for_all(accelerator, caplog):
    whole, divided = small_lockstep(accelerator), small_lockstep(accelerator)
    for one, other in zip([whole.trunk, *whole.tails], [divided.trunk, *divided.tails], strict=True):
        other.load_state_dict(one.state_dict())
    divided.trunk, divided.pieces = SmallMemory(divided.trunk, 6), None
    for _ in range(3):
        whole.step(*some_batch())
        divided.step(*some_batch())
    assert divided.pieces == 2
    assert divided.trunk.seen == [
        12,
        9,
        6,
        6,
        6,
        6,
        6,
        6,
        6,
    ]  # 4, 3 and 2 rows of each fold are tried, then three steps
    assert [message.partition(":")[0] for message in caplog.messages if "pieces" in message] == [
        "train.batch_size 12 is too large for the memory of cpu"
    ]
    for found, expected in zip(learned(divided), learned(whole), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_the_trial_goes_backward_too(accelerator):
    """Where more memory is needed than forward: a head's gradient cannot be had of more than four photos."""

    def refuse(gradient: torch.Tensor) -> None:
        if len(gradient) > 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    lockstep = small_lockstep(accelerator)
    lockstep.pieces = None
    lockstep.tails[0].head.register_forward_hook(lambda head, inputs, logits: logits.register_hook(refuse) and None)
    lockstep.step(*some_batch())
    assert lockstep.pieces == 2  # two of each fold, of which a tail sees two folds


def test_the_trial_leaves_no_trace(accelerator, caplog):
    """Dropped blocks are drawn from random numbers, which the training then draws too."""
    states = []
    for pieces in (1, None):
        config = ModelConfig(name="test_convnext", pretrained=False, drop_path=0.5, tune_stages=4)
        torch.manual_seed(0)
        backbone = build_backbone(config, CLASSES, load_weights=False)
        batches = FoldBalancedBatches(np.arange(24) % FOLDS, 12, seed=0, accelerator=accelerator)
        lockstep = Lockstep(accelerator, TrainConfig(epochs=2, batch_size=12, tail_lr=1e-3), backbone, batches)
        lockstep.pieces = pieces
        lockstep.step(*some_batch())
        assert lockstep.pieces == 1
        assert all(parameter.grad is None for parameter in lockstep.learning)
        states.append(learned(lockstep))
    assert all(torch.equal(one, two) for one, two in zip(*states, strict=True))
    assert "pieces" not in caplog.text


@pytest.mark.parametrize("pieces", [None, 1])
def test_memory_that_holds_nothing_is_told_with_what_to_change(accelerator, pieces):
    """At the trial, and in a later step."""
    lockstep = small_lockstep(accelerator)
    lockstep.trunk, lockstep.pieces = SmallMemory(lockstep.trunk, 0), pieces
    with pytest.raises(MemoryFullError) as error:
        lockstep.step(*some_batch())
    for name in ("train.batch_size", "data.image_size", "model.tune_stages", "train.mixed_precision", "2 GiB"):
        assert name in str(error.value)


def test_on_a_cpu_nothing_is_tried(accelerator):
    lockstep = small_lockstep(accelerator)
    memory = SmallMemory(lockstep.trunk, 12)
    lockstep.trunk = lockstep._by_threads.trunk = memory
    lockstep.step(*some_batch())
    assert sum(memory.seen) == 12


def some_batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    photos = torch.randint(0, 256, (12, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return photos, torch.randint(0, CLASSES, (12,), generator=generator)


def test_a_tail_learns_nothing_from_its_own_fold(accelerator):
    """Other photos and labels in fold 1's rows change every tail but fold 1's."""
    photos, targets = some_batch()
    changed_photos, changed_targets = photos.clone(), targets.clone()
    changed_photos[4:8], changed_targets[4:8] = 255 - photos[4:8], (targets[4:8] + 1) % CLASSES
    one, two = small_lockstep(accelerator), small_lockstep(accelerator)
    for tail, other in zip(one.tails, two.tails, strict=True):
        other.load_state_dict(tail.state_dict())
    two.trunk.load_state_dict(one.trunk.state_dict())
    for _ in range(2):
        one.step(photos, targets)
        two.step(changed_photos, changed_targets)
    same = [
        all(torch.equal(a, b) for a, b in zip(tail.state_dict().values(), other.state_dict().values(), strict=True))
        for tail, other in zip(one.tails, two.tails, strict=True)
    ]
    assert same == [False, True, False]


def test_each_tail_learns_from_the_rows_of_other_folds():
    shares = learned_shares(torch.arange(6), 3)
    assert [rows.tolist() for rows in shares] == [[2, 3, 4, 5], [0, 1, 4, 5], [0, 1, 2, 3]]


def test_averaged_weights_are_used_only_inside_the_block(accelerator):
    lockstep = small_lockstep(accelerator, ema_decay=0.5)
    for _ in range(4):
        lockstep.step(*some_batch())
    raw = lockstep.tails[0].head.fc.weight.clone()
    with lockstep.weights() as tails:
        averaged = tails[0].head.fc.weight.clone()
        assert not tails[0].training
    assert not torch.equal(raw, averaged)
    assert torch.equal(lockstep.tails[0].head.fc.weight, raw)
    with lockstep.weights(raw=True) as tails:
        assert torch.equal(tails[0].head.fc.weight, raw)


def test_a_step_walks_through_no_modules(accelerator, monkeypatch):
    """That takes milliseconds of Python, for which a GPU would wait."""
    lockstep = small_lockstep(accelerator, ema_decay=0.5)
    lockstep.step(*some_batch())
    walked = []

    def note(method: str) -> None:
        original = getattr(nn.Module, method)
        monkeypatch.setattr(
            nn.Module, method, lambda self, *args, **kw: walked.append(self) or original(self, *args, **kw)
        )

    for method in ("train", "state_dict", "named_modules"):
        note(method)
    lockstep.step(*some_batch())
    assert {type(module) for module in walked} <= {nn.ParameterList}


def test_tails_learn_in_training_mode_whatever_they_were_used_for(accelerator):
    lockstep = small_lockstep(accelerator)
    assert all(tail.training for tail in lockstep.tails)
    with lockstep.weights() as tails:
        assert not any(tail.training for tail in tails)
    assert all(tail.training for tail in lockstep.tails)


def test_optimizers_take_one_kernel_for_all_weights_where_pytorch_has_it():
    tail = build_backbone(ModelConfig(name="test_convnext", pretrained=False), CLASSES, load_weights=False).make_tail(0)
    fused = {
        name: make_optimizer([tail], TrainConfig(optimizer=name, tail_lr=1e-3, **options)).param_groups[0].get("fused")
        for name, options in (
            *(("adamw", {}), ("lion", {}), ("adam", {"optimizer_args": {"fused": False}})),
            *(("sgd", {}), ("adagrad", {})),  # fused, the one is wrong and the other has no kernel on a GPU
        )
    }
    assert fused == {"adamw": True, "lion": None, "adam": False, "sgd": None, "adagrad": None}


class Headless(nn.ParameterDict):
    """Parameters without a classifier."""

    def get_classifier(self):
        return nn.Identity()


@pytest.mark.parametrize("optimizer", ["momentum", "sgd"])
def test_a_first_step_that_is_skipped_leaves_no_momentum_behind(optimizer):
    """As loss scaling skips it: fused SGD would use memory that nobody has written."""
    weight = nn.Parameter(torch.ones(2))
    options = {"optimizer_args": {"nesterov": False}} if optimizer == "sgd" else {}
    train = TrainConfig(optimizer=optimizer, tail_lr=0.1, tail_weight_decay=0.0, **options)
    optimizer = make_optimizer([Headless({"weight": weight})], train)
    with mock.patch.object(torch, "empty_like", return_value=torch.full((2,), 1e6)):
        for infinite in (1.0, 0.0):
            weight.grad = torch.ones(2)
            if getattr(optimizer, "_step_supports_amp_scaling", False):  # else the scaler skips the step itself
                optimizer.found_inf, optimizer.grad_scale = torch.tensor(infinite), torch.tensor(1.0)
            elif infinite:
                continue
            optimizer.step()
    assert weight.tolist() == pytest.approx([0.9, 0.9])


def test_tail_and_head_have_rates_and_decay_of_their_own_and_vectors_do_not_decay(accelerator):
    tail = build_backbone(ModelConfig(name="test_convnext", pretrained=False), CLASSES).make_tail(0)
    config = TrainConfig(tail_lr=1e-3, head_lr=1e-2, tail_weight_decay=0.1, head_weight_decay=0.2)
    decay_of = {}
    for group in make_optimizer([tail], config).param_groups:
        assert group["lr"] == {"tail": 1e-3, "head": 1e-2}[group["name"]]
        decay_of |= {id(parameter): group["weight_decay"] for parameter in group["params"]}
    found = {name: decay_of[id(parameter)] for name, parameter in trained_parameters(tail)}
    assert found["head.fc.weight"] == 0.2
    assert found["stages.3.blocks.0.conv_dw.weight"] == 0.1
    assert found["stages.3.blocks.0.mlp.fc1.lora_A.default.weight"] == 0.1
    assert {decay for name, decay in found.items() if name.endswith(("bias", "gamma"))} == {0.0}
    assert found["stages.3.blocks.0.mlp.fc1.lora_magnitude_vector.default.weight"] == 0.0


@pytest.mark.parametrize(
    ("scheduler", "args", "expected"),
    [
        ("cosine", {}, [1.0, 0.5, 0.0]),
        ("multistep", {"decay_milestones": [1, 2], "decay_rate": 0.1}, [1.0, 0.1, 0.01]),
    ],
)
def test_the_schedule_is_stepped_once_an_update(scheduler, args, expected):
    """Two epochs of ten updates: at the start, half-way and at the end."""
    config = TrainConfig(epochs=2, scheduler=scheduler, scheduler_args=args, warmup_epochs=0)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = make_scheduler(optimizer, config, 10)
    rates = []
    for update in range(21):
        schedule.step_update(update)
        rates.append(optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose([rates[0], rates[10], rates[20]], expected, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb", "lion", "nadamw", "muon"])
def test_any_timm_optimizer_learns(accelerator, optimizer):
    lockstep = small_lockstep(accelerator, optimizer=optimizer, warmup_epochs=0)
    before = lockstep.tails[0].head.fc.weight.clone()
    lockstep.step(*some_batch())
    assert not torch.equal(before, lockstep.tails[0].head.fc.weight)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"optimizer": "adamm"}, r"train\.optimizer adamm.*adamw"),
        ({"optimizer_args": {"beta": 1}}, r"train\.optimizer_args .*beta"),
        ({"scheduler": "cosinus"}, r"train\.scheduler cosinus .*cosine"),
        ({"scheduler_args": {"warmup": 1}}, r"train\.scheduler_args .*warmup"),
    ],
)
def test_unknown_optimizers_and_schedules_are_named(accelerator, train, message):
    with pytest.raises(InputError, match=message):
        small_lockstep(accelerator, **train)


def test_balanced_class_weights_have_mean_one_over_the_photos():
    targets = np.array([0, 0, 0, 1, 3, 3])
    weights = balanced_class_weights(targets, 4)
    assert weights[targets].mean() == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx(3)


def test_the_same_seed_repeats_to_the_bit(accelerator):
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        lockstep = small_lockstep(accelerator)
        for _ in range(3):
            lockstep.step(*some_batch())
        runs.append(lockstep.tails[1].state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


@pytest.mark.parametrize("worth", [(0, 0), (0, 1e30), (1e30, 1e30)], ids=["halves", "whole tails", "no threads"])
def test_threads_learn_what_the_undivided_batch_does(accelerator, monkeypatch, worth):
    """In halves of five rows of a fold, also where blocks are left out: to the bit as often as it is repeated."""
    monkeypatch.setattr(gradients, "WORTH_A_THREAD", worth[0])
    monkeypatch.setattr(gradients, "WORTH_HALVING", worth[1])
    runs = []
    for threads, pieces, drop_path in ((3, 0, 0.0), (1, 1, 0.0), (3, 0, 0.5), (1, 0, 0.5), (2, 0, 0.5)):
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        torch.manual_seed(0)
        config = ModelConfig(name="test_convnext", pretrained=False, scale=1.0, drop_path=drop_path, tune_stages=2)
        backbone = build_backbone(config, CLASSES, load_weights=False)
        batches = FoldBalancedBatches(np.arange(15) % FOLDS, 15, seed=0, accelerator=accelerator)
        train = TrainConfig(epochs=2, batch_size=15, optimizer="sgd", tail_lr=0.1)
        lockstep = Lockstep(accelerator, train, backbone, batches)
        lockstep.pieces = pieces
        photos = torch.randint(0, 256, (15, 3, 64, 64), dtype=torch.uint8)
        losses = [lockstep.step(photos, torch.arange(15) % CLASSES) for _ in range(3)]
        runs.append([torch.stack(losses), *learned(lockstep)])
    for threaded, undivided in zip(runs[0], runs[1], strict=True):
        torch.testing.assert_close(threaded, undivided, rtol=1e-4, atol=1e-6)
    for other in runs[3:]:
        assert all(torch.equal(*pair) for pair in zip(runs[2], other, strict=True))
    assert not torch.equal(runs[2][0], runs[0][0])
