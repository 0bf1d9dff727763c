"""The figures of a study's page agree with its table."""

import optuna
from optuna.trial import TrialState

from trunkfold.tuning import page


def test_figures_number_trials_as_the_table_does():
    """Between the finished trials are a failed one and one that still runs."""
    study = optuna.create_study(direction="maximize")
    for state in (TrialState.COMPLETE, TrialState.FAIL, None, TrialState.PRUNED, TrialState.COMPLETE):
        trial = study.ask()
        trial.suggest_float("train.head_lr", 0, 1)
        trial.report(trial.number / 10, 1)
        if state:
            study.tell(trial, trial.number / 10 if state == TrialState.COMPLETE else None, state)
    table = page.trials_table(study).set_index("trial")["state"]
    figures = {name: figure for name, _, figure in page._figures(optuna.visualization, page._shown(study))}
    assert list(figures["history"].data[0].x) == table.index[table == "complete"].tolist() == [0, 4]
    curves = [int(curve.name.removeprefix("Trial")) for curve in figures["learning_curves"].data]
    assert curves == table.index[table.isin(["complete", "pruned"])].tolist() == [0, 3, 4]
