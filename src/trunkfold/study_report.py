"""What a study found: a line a trial, the table of trials, the best one as a configuration, figures and a page."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.figure
import numpy as np
import optuna
import pandas as pd
import plotly.graph_objects
from optuna.trial import FrozenTrial, TrialState
from plotly.offline import get_plotlyjs

from trunkfold.config import TuningConfig, dump_config
from trunkfold.errors import counted
from trunkfold.pages import write_html
from trunkfold.report import plt
from trunkfold.runs import whole_file, write_csv, write_text
from trunkfold.space import best_experiment
from trunkfold.study import FINISHED, HISTORY, finished_trials
from trunkfold.trials import REASON, SPREAD

SCORE = "macro F1"
PAIRS = (  # options that are shown as a map, where both were searched
    ("train.tail_lr", "train.head_lr"),
    ("train.tail_weight_decay", "train.head_weight_decay"),
    ("train.tail_lr", "train.tail_weight_decay"),
    ("train.head_lr", "train.head_weight_decay"),
    ("train.tail_lr", "train.batch_size"),
)
BEST_SHOWN = 10  # trials in the page's table


def describe_trial(study: optuna.Study, trial: FrozenTrial) -> str:
    """What became of a trial, in one line."""
    values = ", ".join(f"{name.rpartition('.')[2]} {_short(value)}" for name, value in trial.params.items())
    return f"trial {trial.number}: {_outcome(trial)}; {describe_best(study)}; {_seconds(trial):.0f} s; {values}"


def describe_best(study: optuna.Study) -> str:
    """The best score so far, and whose it is."""
    best = _best(study)
    return "no trial is complete" if best is None else f"best {best.value:.4f} (trial {best.number})"


def write_results(study: optuna.Study, config: TuningConfig, folder: Path) -> None:
    """Write trials.csv and, once a trial is complete, best.yaml."""
    write_csv(trials_table(study), folder / "trials.csv")
    best = _best(study)
    if best is not None:
        note = f"# Trial {best.number} of {folder}: {_outcome(best)} after {counted(best.last_step, 'epoch')}\n"
        write_text(note + dump_config(best_experiment(config, best.params)), folder / "best.yaml")


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """A row for each trial: its state, score, epochs, seconds and options; of a pruned one the score is its last."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "macro_f1": trial.value if trial.state in FINISHED else None,
            "std_over_folds": trial.user_attrs.get(SPREAD),
            "epochs": trial.last_step,
            "seconds": _seconds(trial),
            "retry_of": (trial.system_attrs.get(HISTORY) or [None])[-1],
            "reason": trial.user_attrs.get(REASON),
            **trial.params,
        }
        for trial in study.get_trials(deepcopy=False)
    ]
    return pd.DataFrame(rows).astype({"epochs": "Int64", "retry_of": "Int64"})


def write_page(study: optuna.Study, folder: Path) -> None:
    """Draw the figures as PNG into figures/, and the same to explore into study.html, which needs no network."""
    (folder / "figures").mkdir(exist_ok=True)
    shown = _shown(study)
    for name, figure in _figures(optuna.visualization.matplotlib, shown):
        with whole_file(folder / "figures" / f"{name}.png") as partial:
            figure.savefig(partial, format="png", dpi=110, bbox_inches="tight")
        plt.close(figure)
    table = trials_table(study)
    write_html(
        folder / "study.html",
        "study.html",
        name=study.study_name,
        best=describe_best(study),
        states=table["state"].value_counts().to_dict(),
        reasons=table["reason"].value_counts().to_dict(),
        table=_best_rows(study),
        short=_short,
        script=get_plotlyjs(),
        figures={
            name.replace("_", " ").capitalize(): figure.to_html(full_html=False, include_plotlyjs=False)
            for name, figure in _figures(optuna.visualization, shown)
        },
    )


def summary(study: optuna.Study, config: TuningConfig, folder: Path) -> str:
    """The study's result as a short text: the best trial's options, and what to do with them."""
    best = _best(study)
    if best is None:
        return f"{counted(finished_trials(study), 'finished trial')}, and none is complete: see {folder / 'trials.csv'}"
    lines = [f"{counted(finished_trials(study), 'finished trial')}; trial {best.number} is best: {_outcome(best)}", ""]
    lines += [f"  {name:<28}{_short(value)}" for name, value in best.params.items()]
    files = ("best.yaml", "trials.csv", "study.html")
    lines += ["", f"files: {', '.join(str(folder / name) for name in files)}"]
    return "\n".join([*lines, "", f"next: accelerate launch src/train_folds.py --config {folder / 'best.yaml'}"])


def _figures(library: ModuleType, shown: optuna.Study) -> Iterator[tuple[str, Any]]:
    """Name and figure of each of Optuna's plots that there are trials enough for, by its library for HTML or PNG."""
    complete = shown.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return
    yield "history", _drawn(library.plot_optimization_history(shown, target_name=SCORE))
    yield "learning_curves", _drawn(library.plot_intermediate_values(shown))
    if len({trial.value for trial in complete}) > 1:  # without a difference there is nothing to explain
        yield "importances", _drawn(library.plot_param_importances(shown, target_name=SCORE))
    searched = {name for trial in complete for name in trial.params}
    if len(searched) > 1:
        yield "parallel_coordinates", _drawn(library.plot_parallel_coordinate(shown, target_name=SCORE))
    for pair in PAIRS:
        names = [_label(name) for name in pair]
        if len(complete) > 1 and set(names) <= searched:
            figure = _drawn(library.plot_contour(shown, params=names, target_name=SCORE))
            yield f"contour_{names[0]}_{names[1]}", figure


def _drawn(plot: Any) -> matplotlib.figure.Figure | plotly.graph_objects.Figure:
    """The figure that a plotting function made, of which those with matplotlib give axes."""
    return plot if isinstance(plot, plotly.graph_objects.Figure) else np.ravel(plot)[0].figure


def _shown(study: optuna.Study) -> optuna.Study:
    """The finished trials as a study in memory, whose options have the short names that figures have room for."""
    shown = optuna.create_study(study_name=study.study_name, direction="maximize")
    for trial in study.get_trials(states=FINISHED):
        trial.distributions = {_label(name): limits for name, limits in trial.distributions.items()}
        trial.params = {_label(name): value for name, value in trial.params.items()}
        shown.add_trial(trial)
    return shown


def _best_rows(study: optuna.Study) -> pd.DataFrame:
    table = trials_table(study)
    complete = table[table["state"] == "complete"].sort_values("macro_f1", ascending=False, kind="stable")
    return complete.head(BEST_SHOWN).drop(columns=["state", "retry_of", "reason"]).rename(columns=_label)


def _best(study: optuna.Study) -> FrozenTrial | None:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(complete, key=lambda trial: trial.value, default=None)


def _outcome(trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        return f"{SCORE} {trial.value:.4f} ± {trial.user_attrs.get(SPREAD, 0):.4f} over the folds"
    if trial.state == TrialState.PRUNED and REASON not in trial.user_attrs:
        return f"pruned after {counted(trial.last_step, 'epoch')} at {trial.value:.4f}"
    return trial.user_attrs.get(REASON, trial.state.name.lower())


def _seconds(trial: FrozenTrial) -> float:
    return float("nan") if trial.duration is None else round(trial.duration.total_seconds(), 3)


def _label(name: str) -> str:
    return name.removeprefix("train.").removeprefix("model.")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
