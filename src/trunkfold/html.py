"""Self-contained pages from templates, and what they embed."""

import base64
import functools
from pathlib import Path

import jinja2

from trunkfold.files import write_text


@functools.cache  # which keeps the compiled templates
def environment() -> jinja2.Environment:
    """Templates of this package, which begin with `{% extends "base.html" %}`; all that they are given is escaped."""
    loader = jinja2.PackageLoader("trunkfold")
    made = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.filters["percent"] = percent
    return made


def write_html(path: Path, template: str, **values: object) -> None:
    """Fill a template of this package and write the page."""
    write_text(render_html(template, **values), path)


def render_html(template: str, **values: object) -> str:
    """Fill a template of this package."""
    return environment().get_template(template).render(**values)


def percent(share: float, digits: int = 0) -> str:
    """`0.825` as `82.5 %`, which no line break divides."""
    return f"{100 * share:.{digits}f}\u00a0%"


def data_address(content: bytes, kind: str) -> str:
    """A picture as an address that holds it: `png`, `jpeg` or `svg+xml`."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()
