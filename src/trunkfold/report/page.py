"""One self-contained page about a run: how good it is, whether to believe that, where it fails, what to do next."""

from collections.abc import Callable
from pathlib import Path

from trunkfold.html import write_html
from trunkfold.report.advice import next_steps
from trunkfold.report.contents import Findings, read_findings
from trunkfold.report.photo_sections import data, mistakes, suspects
from trunkfold.report.score_sections import ablation, calibration, folds, luck, per_class, verdict


def write_report(run: Path) -> None:
    """Draw the figures of a run's tables into figures/ and write report.html beside them.

    Args:
        run: A folder with metrics.json and, where they exist, the run's tables and pictures; what it lacks, the page
            leaves out.

    Raises:
        InputError: metrics.json is missing, or a file is damaged.
    """
    findings = read_findings(run)
    (run / "figures").mkdir(exist_ok=True)
    made = {title: make(findings) for title, make in SECTIONS.items()}
    sections = {title: section for title, section in made.items() if section is not None}
    anchors = {title: title.lower().replace(" ", "-") for title in sections}
    write_html(run / "report.html", "report.html", name=run.name, sections=sections, anchors=anchors)


def advice(findings: Findings) -> dict | None:
    """What to do next."""
    sentences = next_steps(findings)
    return {"sentences": sentences} if sentences else None


def making(findings: Findings) -> dict:
    """Everything needed to repeat the run."""
    config = findings.folder / "config.yaml"
    return {
        "metrics": findings.metrics,
        "made_with": findings.metrics.get("made_with") or {},
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
