"""The report: one self-contained page with the result of a run, recommendations, and the evidence."""

from collections.abc import Callable

from trunkfold.html import render_html
from trunkfold.report.advice import next_steps
from trunkfold.report.console import MEASURES
from trunkfold.report.contents import Findings
from trunkfold.report.photo_sections import data, mistakes, suspects
from trunkfold.report.score_sections import ablation, calibration, folds, luck, per_class, result
from trunkfold.run_folder import SETS


def write_report(findings: Findings) -> None:
    """Write report.html and its figures to the run's folder. Sections without data are omitted."""
    run = findings.folder
    made = {title: make(findings) for title, make in SECTIONS.items()}
    sections = {title: section for title, section in made.items() if section}
    anchors = {title: title.lower().replace(" ", "-") for title in sections}
    known = {"findings": findings, "metrics": findings.metrics, "sets": SETS, "measures": MEASURES}
    run.save(render_html(run.report.name, **known, sections=sections, anchors=anchors), run.report)


def making(findings: Findings) -> dict:
    """Return the configuration, for the section about reproducing the run."""
    config = findings.folder.config
    return {"config": config.read_text(encoding="utf-8") if config.exists() else None}


SECTIONS: dict[str, Callable[[Findings], dict | list[str] | None]] = {
    "Result": result,
    "Next steps": next_steps,
    "Classes": per_class,
    "Most confident mistakes": mistakes,
    "Suspected labels": suspects,
    "Leaderboard luck": luck,
    "Calibration": calibration,
    "Folds": folds,
    "Ablation": ablation,
    "Data": data,
    "Reproducibility": making,
}
