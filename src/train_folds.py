"""Train the folds of an experiment in lockstep, predict what no fold has seen, and report how good that is.

accelerate launch src/train_folds.py --config configs/demo.yaml
"""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from trunkfold.augment import Augmentation, make_augmentation
from trunkfold.backbone import Backbone, build_backbone, count_parameters, merge
from trunkfold.competition import Labelled, load_labelled
from trunkfold.config import Config, dump_config, parse_config
from trunkfold.consensus import average_in_folds
from trunkfold.copies import search_key
from trunkfold.ensemble import average_probabilities, save_fold, save_shared, scoring_members
from trunkfold.errors import exit_on_input_error
from trunkfold.experiment import complete, prepare, settle_normalization
from trunkfold.features import FeatureSource
from trunkfold.groups import SEARCHED
from trunkfold.loaders import TrainingPhotos, choose_workers, training_loader
from trunkfold.predictions import scored_table
from trunkfold.process import start_process
from trunkfold.report import AUGMENTED, summary, write_report
from trunkfold.runs import Stopwatch, check_run_is_new, create_run, write_csv, write_json, write_text
from trunkfold.scores import macro_f1, score_run
from trunkfold.sheet import write_sheet
from trunkfold.splits import HELD_OUT
from trunkfold.training import Validation, train


def main() -> None:
    """Read and check, train, predict, save, report."""
    config = complete(parse_config(description=__doc__))
    augment = make_augmentation(config.augment, config.data.image_size)
    run = check_run_is_new(config.run.name, config.run.restart)
    accelerator, watch = start_process(config.train), Stopwatch()

    with watch("reading photos"):
        labelled = load_labelled(config)
    accelerator.print(labelled.describe(), f"on {accelerator.device} ({accelerator.mixed_precision})")
    config = settle_normalization(config, labelled)
    backbone = build_backbone(config.model, len(labelled.classes), normalize=config.data.normalize)
    lockstep = prepare(config, labelled, backbone, accelerator)
    if accelerator.is_main_process:
        create_run(config.run.name, config.run.restart)
        save_inputs(run, config, labelled, backbone, augment)

    source = FeatureSource(accelerator, lockstep.trunk, labelled.pixels, config)
    photos = TrainingPhotos(labelled.pixels, labelled.targets, augment, config.train.seed)
    with watch("features"):
        clean, views = source.clean(labelled.rows_by_fold), config.train.cached_views
        seen = source.augmented(photos, views) if views else photos
    with watch("training"):
        loader = training_loader(seen, lockstep.batches, choose_workers(config.data.workers, accelerator))
        history = train(lockstep, loader, Validation(clean, labelled.fold_of_row, labelled.targets))
    if accelerator.is_main_process:  # before anything else can go wrong
        write_csv(history, run / "history.csv")
        for fold, tail in enumerate(lockstep.tails):
            save_fold(run / f"fold_{fold}", tail)
    with watch("prediction"):
        views = [
            clean if view == "plain" else source.batches(labelled.rows_by_fold, view, f"predicting, {view}")
            for view in config.predict.views
        ]
        members = scoring_members(labelled.fold_of_row, config.split.folds)
        probabilities = average_probabilities(accelerator, [merge(tail) for tail in lockstep.tails], members, views)

    if accelerator.is_main_process:
        scores = save_predictions(run, labelled, probabilities, config.predict.consensus)
        learned = config.train.epochs * len(loader) * config.train.batch_size
        metrics = {
            **scores,
            "classes": labelled.classes,
            "split": asdict(config.split),
            "search_key": search_key(config.data.root) if config.split.groups in SEARCHED else None,
            "parameters": count_parameters(backbone, lockstep.tails[0]),
            "seconds": watch.seconds,
            "images_per_second": round(learned / watch.seconds["training"], 1),
        }
        write_json(metrics, run / "metrics.json")
        write_report(run)
        print(f"\n{summary(run)}\n\nnext: python src/make_submission.py --run {run}")
    accelerator.end_training()


def save_inputs(run: Path, config: Config, labelled: Labelled, backbone: Backbone, augment: Augmentation) -> None:
    """What the run starts from: the configuration with its classes, the folds, the weights that all folds share, and
    samples of what the model will be shown."""
    resolved = replace(config, data=replace(config.data, classes=labelled.classes))
    write_text(dump_config(resolved), run / "config.yaml")
    write_csv(labelled.table, run / "folds.csv")
    write_csv(labelled.groups, run / "groups.csv")
    save_shared(run, backbone)
    (run / "figures").mkdir()
    rows = [int(np.flatnonzero(labelled.targets == place)[0]) for place in range(len(labelled.classes))]
    write_sheet(run / "figures" / AUGMENTED, labelled.pixels, rows, list(labelled.classes.values()), augment)


def save_predictions(run: Path, labelled: Labelled, probabilities: np.ndarray, consensus: bool) -> dict:
    """Write oof.csv and holdout.csv; their scores, and what the consensus of copies added to them."""
    folds, fold_of_row = labelled.table, labelled.fold_of_row
    shared = average_in_folds(probabilities, folds) if consensus else probabilities
    tables, gains = {}, {}
    for name, rows in {"oof": fold_of_row >= 0, "holdout": fold_of_row == HELD_OUT}.items():
        if rows.any():
            tables[name] = scored_table(folds[rows], shared[rows], labelled.classes)
            write_csv(tables[name], run / f"{name}.csv")
            alone = scored_table(folds[rows], probabilities[rows], labelled.classes)
            gains[name] = macro_f1(tables[name], labelled.classes) - macro_f1(alone, labelled.classes)
    scores = score_run(tables["oof"], tables.get("holdout"), folds, labelled.classes)
    return {**scores, "consensus": {"macro_f1_gain": gains} if consensus else None}


if __name__ == "__main__":
    with exit_on_input_error():
        main()
