"""Results of a study: log lines, trials.csv, best.yaml, figures and an HTML page."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import optuna
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState, create_trial
from plotly.offline import get_plotlyjs

from trunkfold.config.parsing import dump_config
from trunkfold.errors import counted
from trunkfold.files import whole_file, write_csv, write_text
from trunkfold.html import write_html
from trunkfold.tuning.objective import REASON, SPREAD
from trunkfold.tuning.schema import TuningConfig
from trunkfold.tuning.search_space import best_experiment
from trunkfold.tuning.study import FINISHED, HISTORY, finished_trials

SCORE = "macro F1"
PAIRS = (  # pairs of options to draw contour plots for, if both were searched
    ("train.tail_lr", "train.head_lr"),
    ("train.tail_weight_decay", "train.head_weight_decay"),
    ("train.tail_lr", "train.tail_weight_decay"),
    ("train.head_lr", "train.head_weight_decay"),
    ("train.tail_lr", "train.batch_size"),
)
BEST_SHOWN = 10  # rows of the page's table


def describe_trial(study: optuna.Study, trial: FrozenTrial) -> str:
    """Describe the outcome of a trial in one line."""
    values = ", ".join(f"{name.rpartition('.')[2]} {_short(value)}" for name, value in trial.params.items())
    return f"trial {trial.number}: {_outcome(trial)}; {describe_best(study)}; {_seconds(trial):.0f} s; {values}"


def describe_best(study: optuna.Study) -> str:
    """Describe the best complete trial so far."""
    best = _best(study)
    return "no trial is complete" if best is None else f"best {best.value:.4f} (trial {best.number})"


def write_results(study: optuna.Study, config: TuningConfig, folder: Path) -> None:
    """Write trials.csv and, if a trial is complete, best.yaml."""
    write_csv(trials_table(study), folder / "trials.csv")
    best = _best(study)
    if best is not None:
        note = f"# Trial {best.number} of {folder}: {_outcome(best)} after {counted(best.last_step, 'epoch')}\n"
        write_text(note + dump_config(best_experiment(config, best.params)), folder / "best.yaml")


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """Return one row per trial: state, score, epochs, seconds and options. A pruned trial has its last score."""
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
    """Write figures/*.png, and study.html with interactive versions of them; the page works offline."""
    (folder / "figures").mkdir(exist_ok=True)
    shown, table = _shown(study), trials_table(study)
    with plt.rc_context(), warnings.catch_warnings():  # Optuna changes matplotlib's global style
        warnings.simplefilter("ignore")  # matplotlib warns about axes with a single value
        for name, _, axes in _figures(optuna.visualization.matplotlib, shown):
            figure = _tidied(name, np.ravel(axes)[0])
            with whole_file(folder / "figures" / f"{name}.png") as partial:
                figure.savefig(partial, format="png", dpi=110, bbox_inches="tight")
            plt.close(figure)
    figures = {}
    for name, title, figure in _figures(optuna.visualization, shown):
        figure.update_layout(title=None, margin={"t": 50}, showlegend=name == "history")
        if name == "learning_curves":
            figure.update_layout(xaxis_title="epoch", yaxis_title=SCORE)
        figures[title] = figure.to_html(full_html=False, include_plotlyjs=False)
    best = table[table["state"] == "complete"].sort_values("macro_f1", ascending=False, kind="stable")
    write_html(
        folder / "study.html",
        "study.html",
        name=study.study_name,
        best=describe_best(study),
        counts={column: table[column].value_counts().to_dict() for column in ("state", "reason")},
        table=best.head(BEST_SHOWN).drop(columns=["state", "retry_of", "reason"]).rename(columns=_label),
        short=_short,
        script=get_plotlyjs(),
        figures=figures,
    )


def summary(study: optuna.Study, folder: Path) -> str:
    """Summarize the study: the best trial's score and options, the files, and the next command."""
    best = _best(study)
    if best is None:
        return f"{counted(finished_trials(study), 'finished trial')}, none complete: see {folder / 'trials.csv'}"
    lines = [f"{counted(finished_trials(study), 'finished trial')}; trial {best.number} is best: {_outcome(best)}", ""]
    lines += [f"  {name:<28}{_short(value)}" for name, value in best.params.items()]
    files = ("best.yaml", "trials.csv", "study.html")
    lines += ["", f"files: {', '.join(str(folder / name) for name in files)}"]
    return "\n".join([*lines, "", f"next: python src/train_folds.py --config {folder / 'best.yaml'}"])


def _figures(library: ModuleType, shown: optuna.Study) -> Iterator[tuple[str, str, Any]]:
    """Yield name, title and figure of each plot that has enough trials, drawn by Optuna's module `library`."""
    complete = shown.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return
    yield "history", "Optimization history", library.plot_optimization_history(shown, target_name=SCORE)
    yield "learning_curves", "Learning curves of all trials", library.plot_intermediate_values(shown)
    if len({trial.value for trial in complete}) > 1:  # importances of a constant score are undefined
        plot = library.plot_param_importances(shown, target_name=SCORE)
        yield "importances", "Hyperparameter importances", plot
    searched = {name for trial in complete for name in trial.params}
    if len(searched) > 1:
        plot = library.plot_parallel_coordinate(shown, target_name=SCORE)
        yield "parallel_coordinates", "Parallel coordinates of complete trials", plot
    for pair in PAIRS:
        first, second = map(_label, pair)
        if len(complete) > 1 and {first, second} <= searched:
            plot = library.plot_contour(shown, params=[first, second], target_name=SCORE)
            yield f"contour_{first}_{second}", f"Score by {first} and {second}", plot


def _tidied(name: str, axes: Axes) -> Figure:
    """Widen Optuna's figure for many options, and remove a legend of hundreds of trials."""
    figure = axes.figure
    if name == "parallel_coordinates":
        figure.set_size_inches(2 + 1.6 * len(figure.axes), 5)
    elif name == "learning_curves":
        if axes.get_legend() is not None:
            axes.get_legend().remove()
        axes.set(title="Learning curves", xlabel="epoch", ylabel=SCORE)
    return figure


def _shown(study: optuna.Study) -> optuna.Study:
    """Copy the finished trials to a study in memory, with their numbers, and option names short enough for figures."""
    shown = optuna.create_study(study_name=study.study_name, direction="maximize")
    for trial in study.get_trials():
        trial.distributions = {_label(name): limits for name, limits in trial.distributions.items()}
        trial.params = {_label(name): value for name, value in trial.params.items()}
        # The storage numbers trials by their order: without a placeholder for each other trial it would renumber them.
        shown.add_trial(trial if trial.state in FINISHED else create_trial(state=TrialState.FAIL))
    return shown


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
    if isinstance(value, float):
        return "-" if value != value else f"{value:.4g}"
    return str(value)
