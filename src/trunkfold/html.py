"""Self-contained pages rendered from templates."""

import base64
import functools
from pathlib import Path

import jinja2

from trunkfold.files import write_text


@functools.cache  # keeps compiled templates
def environment() -> jinja2.Environment:
    """Return the Jinja environment of this package's templates; values are escaped."""
    loader = jinja2.PackageLoader("trunkfold")
    made = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"percent": percent, "probability": probability, "interval": interval, "duration": duration}
    return made


def write_html(path: Path, template: str, **values: object) -> None:
    """Render a template of this package to a file."""
    write_text(render_html(template, **values), path)


def render_html(template: str, **values: object) -> str:
    """Render a template of this package."""
    return environment().get_template(template).render(**values)


def percent(share: float, digits: int = 0) -> str:
    """Format 0.825 as `82.5 %`, with a no-break space."""
    return f"{100 * share:.{digits}f}\u00a0%"


def probability(share: float) -> str:
    """Format 0.964 as `96.4 %`, and values that would round to 100 % or 0 % as `> 99.9 %` or `< 0.1 %`."""
    if share >= 0.9995:
        return ">\u00a099.9\u00a0%"
    return "<\u00a00.1\u00a0%" if share < 0.0005 else percent(share, 1)


def interval(low: float, high: float, sign: str = "") -> str:
    """Format an interval as `[0.903, 1.000]`, with signs if `sign` is "+", for differences.

    That of a perfect score has width 0 and says nothing: `no mistake`.
    """
    return "no mistake" if low == 1 else f"[{low:{sign}.3f}, {high:{sign}.3f}]"


def duration(seconds: float) -> str:
    """Format seconds as `0.8 s`, `75 s`, `12 min` or `2 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def data_address(content: bytes, kind: str) -> str:
    """Return an image (`png`, `jpeg` or `svg+xml`) as a data URL."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()
