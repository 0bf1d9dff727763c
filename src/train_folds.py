"""Train the folds of an experiment in lockstep, predict what no fold has seen, and report how good that is.

accelerate launch src/train_folds.py --config configs/demo.yaml
"""

from dataclasses import asdict

import numpy as np
from torch import nn

from trunkfold.config.parsing import parse_config
from trunkfold.copies.search import search_key
from trunkfold.errors import exit_on_input_error
from trunkfold.evaluation.known_photos import save_known_photos
from trunkfold.files import write_json
from trunkfold.images.augmentation import make_augmentation
from trunkfold.images.batches import choose_workers, training_loader
from trunkfold.images.workers import worker_deaths_explained
from trunkfold.model.backbone import build_backbone, count_parameters, merge
from trunkfold.model.embeddings import embed
from trunkfold.model.ensemble import predict
from trunkfold.model.features import FeatureBatches, FeatureSource
from trunkfold.output.outputs import save_inputs, save_predictions, save_tails
from trunkfold.output.provenance import made_with
from trunkfold.output.thumbnails import save_thumbnails
from trunkfold.report.console import summary
from trunkfold.report.page import write_report
from trunkfold.runs import Stopwatch
from trunkfold.split.dataset import Labelled, load_labelled
from trunkfold.split.folds import scoring_members
from trunkfold.split.groups import SEARCHED
from trunkfold.training.accelerator import start_process
from trunkfold.training.checkpoint import STATE, Checkpoint
from trunkfold.training.lockstep import Lockstep
from trunkfold.training.loop import Validation, train
from trunkfold.training.resume import check_run, occupied_run
from trunkfold.training.setup import complete, prepare, settle_normalization, shown_photos


def main() -> None:
    """Read and check, then train, predict, save and report in the run's folder."""
    config = complete(parse_config(description=__doc__))
    augment = make_augmentation(config.augment, config.data.image_size)
    accelerator, watch = start_process(config.train), Stopwatch()
    run = check_run(config)
    with watch("reading photos"):
        labelled = load_labelled(config)
    accelerator.print(labelled.describe(), f"on {accelerator.device} ({accelerator.mixed_precision})")
    config = settle_normalization(config, labelled)
    backbone = build_backbone(config.model, len(labelled.classes), normalize=config.data.normalize)
    lockstep = prepare(config, labelled, backbone, accelerator)
    occupied = occupied_run(run, config.run.restart, labelled.table, accelerator)
    with occupied, worker_deaths_explained():
        if accelerator.is_main_process:
            save_inputs(run, config, labelled, backbone, augment)
        source = FeatureSource(accelerator, lockstep.trunk, labelled.pixels, config, lockstep.tails[0])
        with watch("features"):
            clean, seen = shown_photos(source, labelled, augment)
        with watch("training"):
            loader = training_loader(
                seen, lockstep.batches, choose_workers(config.data, accelerator), accelerator.device
            )
            validation = Validation(clean, labelled.fold_of_row, labelled.targets)
            checkpoint = Checkpoint(run / STATE, accelerator, config.train, labelled.pixels.key, watch.started)
            history = train(lockstep, loader, validation, checkpoint)
        with watch("prediction"):
            tails = [merge(tail) for tail in lockstep.tails]
            members = scoring_members(labelled.fold_of_row, config.split.folds)
            predicted, raw = predict_labelled(lockstep, tails, members, source, clean, labelled)
            embeddings = embed(accelerator, clean, len(labelled.table))
        if accelerator.is_main_process:
            save_known_photos(run, embeddings, labelled.table)
            save_tails(run, history, lockstep.tails)
            scores = save_predictions(run, config, labelled, predicted, raw)
            save_thumbnails(run, labelled, accelerator, lockstep.trunk, tails, members, config.data.image_size)
            seconds = {**watch.seconds, "training": round(history.drop_duplicates("epoch")["seconds"].sum(), 3)}
            learned = config.train.epochs * len(loader) * config.train.batch_size
            metrics = {
                **scores,
                "classes": labelled.classes,
                "split": asdict(config.split),
                "search_key": search_key(config.data.root) if config.split.groups in SEARCHED else None,
                "parameters": count_parameters(backbone, lockstep.tails[0]),
                "made_with": made_with(config, accelerator, labelled.table["group"]),
                "seconds": seconds,
                "images_per_second": round(learned / seconds["training"], 1),
            }
            write_json(metrics, run / "metrics.json")
            write_report(run)
    if accelerator.is_main_process:
        print(f"\n{summary(run)}\n\nnext: python src/make_submission.py --run {run}")
    accelerator.end_training()


def predict_labelled(
    lockstep: Lockstep,
    tails: list[nn.Module],
    members: np.ndarray,
    source: FeatureSource,
    clean: FeatureBatches,
    labelled: Labelled,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Predictions of every tail in every view, see `trunkfold.model.ensemble.predict`, and, where weights are averaged,
    those of the last weights."""
    config = source.config
    views = [
        clean if view == "plain" else source.batches(labelled.rows_by_fold, view, f"predicting, {view}")
        for view in config.predict.views
    ]
    if config.train.ema_decay is None or config.train.keep == "best":
        return predict(lockstep.accelerator, tails, members, views), None
    with lockstep.raw_weights() as last:
        both = [*tails, *(merge(tail) for tail in last)]
    predicted = predict(lockstep.accelerator, both, np.hstack([members, members]), views)
    return predicted[:, :, : len(tails)], predicted[:, :, len(tails) :]


if __name__ == "__main__":
    with exit_on_input_error():
        main()
