"""Train all folds in lockstep, predict the held-out and out-of-fold photos, and report the scores.

python src/train_folds.py --config configs/demo.yaml
"""

from trunkfold.config.parsing import parse_config
from trunkfold.errors import exit_on_input_error
from trunkfold.evaluation.known_photos import save_known_photos
from trunkfold.images.workers import worker_deaths_explained
from trunkfold.model.embeddings import embed
from trunkfold.model.pretrained import local_model
from trunkfold.output.outputs import predict_labelled, save_inputs, save_results, save_tails
from trunkfold.output.provenance import Stopwatch, describe_training
from trunkfold.output.thumbnails import save_thumbnails
from trunkfold.report.console import summary
from trunkfold.report.contents import read_findings
from trunkfold.report.index import write_index
from trunkfold.report.page import write_report
from trunkfold.split.dataset import load_labelled
from trunkfold.training.accelerator import check_agreement, describe_device, end_processes, start_process
from trunkfold.training.checkpoint import Checkpoint
from trunkfold.training.loop import train
from trunkfold.training.resume import check_normalization, check_run, occupied_run
from trunkfold.training.setup import complete, merged_tails, prepare_experiment, shown_photos
from trunkfold.training.trackers import log_results, tracking


def main() -> None:
    """Check the options, train, predict, and write results and report to the run's folder."""
    config = complete(parse_config(description=__doc__))
    accelerator, watch = start_process(config.train), Stopwatch()
    run, model = check_run(config), local_model(config.model)
    with watch("reading photos"):
        labelled = load_labelled(config)
    check_agreement(accelerator, labelled.key)
    accelerator.print(labelled.describe(), f"on {describe_device(accelerator)}")
    if labelled.certainty:
        accelerator.print(labelled.certainty)
    experiment = prepare_experiment(config, labelled, accelerator, model)
    check_normalization(run, experiment.config)
    with (
        occupied_run(run, config.run.restart, labelled.table, accelerator),
        worker_deaths_explained(),
        tracking(run, experiment.config, accelerator),
    ):
        if accelerator.is_main_process:
            save_inputs(run, experiment.config, labelled, experiment.backbone, experiment.augment)
        with watch("features"):
            loader, validation = shown_photos(experiment)
        with watch("training"):
            checkpoint = Checkpoint(run.state, accelerator, config.train, labelled.pixels.key, watch.started)
            history = train(experiment.lockstep, loader, validation, checkpoint)
            del loader  # ends its workers
        with watch("prediction"):
            tails, raw = merged_tails(experiment.lockstep)
            clean = validation.features
            predicted, raw = predict_labelled(accelerator, tails, raw, experiment.source, clean, labelled)
            embeddings = embed(clean)
        if accelerator.is_main_process:
            save_known_photos(run, embeddings, labelled.table)
            with experiment.lockstep.weights() as kept:
                save_tails(run, history, kept)
            facts = describe_training(accelerator, labelled, history, experiment.photos, watch.seconds)
            facts |= {"parameters": experiment.parameters, "weights": experiment.backbone.digest}
            save_results(run, experiment.config, labelled, predicted, raw, **facts)
            findings = read_findings(run)
            side, trunk = experiment.config.data.image_size, experiment.lockstep.trunk
            save_thumbnails(run, findings.gallery, labelled, accelerator, trunk, tails, side)
            write_report(findings)
            log_results(accelerator, findings.metrics, run)
            write_index()
            print(f"\n{summary(run, findings.metrics, f'python src/make_submission.py --run {run}')}")
    end_processes(accelerator)


if __name__ == "__main__":
    with exit_on_input_error():
        main()
