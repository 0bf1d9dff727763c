"""One self-contained page about a run: how good it is, whether to believe that, where it fails, what to do next."""

from collections.abc import Callable

from trunkfold.html import render_html
from trunkfold.report.advice import next_steps
from trunkfold.report.contents import Findings
from trunkfold.report.photo_sections import data, mistakes, suspects
from trunkfold.report.score_sections import ablation, calibration, folds, luck, per_class, verdict


def write_report(findings: Findings) -> None:
    """Draw the figures of a run's tables, and write the page beside them; what the run lacks, the page leaves out."""
    run = findings.folder
    made = {title: make(findings) for title, make in SECTIONS.items()}
    sections = {title: section for title, section in made.items() if section is not None}
    anchors = {title: title.lower().replace(" ", "-") for title in sections}
    run.save(render_html(run.report.name, name=run.name, sections=sections, anchors=anchors), run.report)


def advice(findings: Findings) -> dict | None:
    """Recommended next steps."""
    sentences = next_steps(findings)
    return {"sentences": sentences} if sentences else None


def making(findings: Findings) -> dict:
    """Everything needed to repeat the run."""
    config = findings.folder.config
    return {
        "metrics": findings.metrics,
        "config": config.read_text(encoding="utf-8") if config.exists() else None,
    }


SECTIONS: dict[str, Callable[[Findings], dict | None]] = {
    "Verdict": verdict,
    "Luck": luck,
    "Classes": per_class,
    "Calibration": calibration,
    "Folds": folds,
    "Mistakes": mistakes,
    "Suspected labels": suspects,
    "What to do next": advice,
    "Data": data,
    "What each part adds": ablation,
    "How it was made": making,
}
