"""Compare photos per second of an ONNX ensemble, PyTorch's ensemble, and K separate models, on a CPU.

    python tests/benchmarks/bench_export.py              # ConvNeXt-Tiny, 224 pixels, five folds, two views
    python tests/benchmarks/bench_export.py --precision int8 --batch 1

Weights and photos are random, as they do not affect speed. All implementations alternate in one process.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from machine import Table, device_name, seconds_of, spread

from trunkfold.config.schema import ModelConfig
from trunkfold.deploy.graph import EnsembleModule
from trunkfold.deploy.onnx_file import onnx_probabilities, quantize, write_graph
from trunkfold.model.backbone import build_backbone
from trunkfold.model.layers import merge

CLASSES, VIEWS = 6, ["plain", "hflip"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="convnext_tiny")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "fp16", "int8"])
    options = parser.parse_args()

    backbone = build_backbone(ModelConfig(name=options.model, pretrained=False), CLASSES, load_weights=False)
    tails = [merge(backbone.make_tail(fold)) for fold in range(options.folds)]
    ensemble = EnsembleModule(backbone.trunk, tails, VIEWS, 1.0)
    alone = [EnsembleModule(backbone.trunk, [tail], VIEWS, 1.0) for tail in tails]
    photos = torch.randint(0, 256, (options.batch, 3, options.size, options.size), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        write_graph(ensemble, photos.repeat(2, 1, 1, 1)[:2], file, options.precision)
        if options.precision == "int8":
            file = quantize(file, iter(photos.numpy()[None]))
        exported = onnx_probabilities(file)
        sides = {
            f"ONNX, {options.precision}": lambda: exported(photos.numpy()),
            "PyTorch, one trunk": lambda: ensemble(photos),
            f"PyTorch, {options.folds} models": lambda: [model(photos) for model in alone],
        }
        times = {name: [] for name in sides}
        for _ in range(options.rounds + 1):
            for name, side in sides.items():
                times[name].append(seconds_of(side, photos.device))
        difference = np.abs(exported(photos.numpy()) - ensemble(photos).numpy()).max()
    rows = []
    for name, seconds in times.items():
        found = spread([options.batch / second for second in seconds[1:]])  # the first round warms up
        rows.append([name, f"{found['median']:.2f}", f"{found['lowest']:.2f} to {found['highest']:.2f}"])
    print(f"{options.model}, {options.size} px, {options.folds} folds, {len(VIEWS)} views, batch {options.batch}")
    print(f"{device_name(photos.device)}; probabilities differ by at most {difference:.1g}")
    print(Table(["", "photos/s", "lowest to highest"], rows))


if __name__ == "__main__":
    main()
