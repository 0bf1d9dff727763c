"""The report: one self-contained page with the result of a run, recommendations, and the evidence."""

from collections.abc import Callable

from trunkfold.html import render_html
from trunkfold.report.advice import next_steps
from trunkfold.report.contents import Findings
from trunkfold.report.photo_sections import data, mistakes, suspects
from trunkfold.report.score_sections import ablation, calibration, folds, luck, per_class, result


def write_report(findings: Findings) -> None:
    """Write report.html and its figures to the run's folder. Sections without data are omitted."""
    run = findings.folder
    made = {title: make(findings) for title, make in SECTIONS.items()}
    sections = {title: section for title, section in made.items() if section}
    anchors = {title: title.lower().replace(" ", "-") for title in sections}
    run.save(render_html(run.report.name, name=run.name, sections=sections, anchors=anchors), run.report)


def making(findings: Findings) -> dict:
    """Return the section about reproducing the run: configuration, timing and versions."""
    config = findings.folder.config
    return {
        "metrics": findings.metrics,
        "config": config.read_text(encoding="utf-8") if config.exists() else None,
    }


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
