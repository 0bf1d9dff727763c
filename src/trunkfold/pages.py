"""Self-contained pages from the package's templates."""

from pathlib import Path

import jinja2

from trunkfold.runs import write_text


def write_html(path: Path, template: str, **values: object) -> None:
    """Fill a template of this package and write the page; all that it is given is escaped."""
    loader = jinja2.PackageLoader("trunkfold", "")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    write_text(environment.get_template(template).render(**values), path)
