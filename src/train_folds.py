"""Train the folds of an experiment in lockstep, predict what no fold has seen, and report how good that is.

accelerate launch src/train_folds.py --config configs/demo.yaml
"""

from dataclasses import asdict

from trunkfold.augment import make_augmentation
from trunkfold.backbone import build_backbone, count_parameters, merge
from trunkfold.competition import load_labelled
from trunkfold.copies import search_key
from trunkfold.ensemble import average_probabilities, save_fold, scoring_members
from trunkfold.errors import exit_on_input_error
from trunkfold.experiment import complete, prepare, settle_normalization, shown_photos
from trunkfold.features import FeatureSource
from trunkfold.groups import SEARCHED
from trunkfold.loaders import choose_workers, training_loader
from trunkfold.options import parse_config
from trunkfold.process import start_process
from trunkfold.provenance import made_with
from trunkfold.report import write_report
from trunkfold.results import save_inputs, save_predictions
from trunkfold.runs import Stopwatch, check_run_is_new, create_run, write_csv, write_json
from trunkfold.summary import summary
from trunkfold.thumbnails import save_thumbnails
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
    with watch("features"):
        clean, seen = shown_photos(source, labelled, augment)
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
        tails = [merge(tail) for tail in lockstep.tails]
        probabilities = average_probabilities(accelerator, tails, members, views)

    if accelerator.is_main_process:
        scores = save_predictions(run, labelled, probabilities, config.predict.consensus)
        save_thumbnails(run, labelled, lockstep.trunk, tails, members, config.data.image_size)
        learned = config.train.epochs * len(loader) * config.train.batch_size
        metrics = {
            **scores,
            "classes": labelled.classes,
            "split": asdict(config.split),
            "search_key": search_key(config.data.root) if config.split.groups in SEARCHED else None,
            "parameters": count_parameters(backbone, lockstep.tails[0]),
            "made_with": made_with(config, accelerator, labelled.table["group"]),
            "seconds": watch.seconds,
            "images_per_second": round(learned / watch.seconds["training"], 1),
        }
        write_json(metrics, run / "metrics.json")
        write_report(run)
        print(f"\n{summary(run)}\n\nnext: python src/make_submission.py --run {run}")
    accelerator.end_training()


if __name__ == "__main__":
    with exit_on_input_error():
        main()
