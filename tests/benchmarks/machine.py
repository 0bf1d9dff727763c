"""Shared by benchmarks: the machine's name and measured peak rates, timing, and tables for terminal, JSON and page."""

import io
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch.nn import functional as F

from trunkfold.files import write_json, write_text
from trunkfold.html import data_address, environment
from trunkfold.report.figures import STYLE, plt

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
REPEATS = 7


@dataclass(frozen=True)
class Machine:
    """A device with its measured peak rates.

    Attributes:
        name: GPU, or processor with its numbers of cores and threads.
        operations: Floating-point operations per second of a large matrix product; a multiply-add counts as two.
        bytes: Bytes read and written per second when copying a large tensor.
    """

    name: str
    operations: float
    bytes: float

    def floor(self, operations: float = 0, moved: float = 0) -> float:
        """Return a lower bound in seconds: operations over peak or bytes over bandwidth, whichever is larger."""
        return max(operations / self.operations, moved / self.bytes)

    def describe(self) -> str:
        """Return name and peak rates in one line."""
        return f"{self.name}; {self.operations / 1e9:,.0f} GFLOP/s, {self.bytes / 1e9:,.0f} GB/s measured"


def measure_machine(device: torch.device, precision: str) -> Machine:
    """Measure a device in a precision: no, fp16 or bf16."""
    return Machine(device_name(device), peak_operations(device, DTYPES[precision]), peak_bytes(device))


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or the processor with cores and threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def peak_operations(device: torch.device, dtype: torch.dtype) -> float:
    """Measure operations per second of a large matrix product, with the faster of two libraries.

    On a CPU, PyTorch uses MKL for matrix products and oneDNN for convolutions; which is faster depends on the CPU.
    """
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    picture, kernel = left.reshape(1, side, 1, side).permute(0, 3, 1, 2), right.reshape(side, side, 1, 1)
    with torch.no_grad():
        calls = lambda: torch.mm(left, right), lambda: F.conv2d(picture, kernel)
        return max(2 * side**3 / fastest(call, device) for call in calls)


def peak_bytes(device: torch.device) -> float:
    """Measure bytes per second read and written by a copy between two tensors larger than any cache."""
    size = (2**31 if device.type == "cuda" else 2**28) // 4
    source, target = torch.ones(size, device=device), torch.empty(size, device=device)
    return 2 * 4 * size / fastest(lambda: target.copy_(source), device)


def fastest(call: Callable[[], object], device: torch.device) -> float:
    """Return the minimum over several calls after a warm-up, which excludes disturbances."""
    return min([seconds_of(call, device) for _ in range(REPEATS + 1)][1:])


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call, with synchronization of the device."""
    started = now(device)
    call()
    return now(device) - started


def now(device: torch.device) -> float:
    """Return the time after synchronizing the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, lowest and highest of repeated measurements."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


@dataclass(frozen=True)
class Table:
    """A table of strings with headings; the first column names the rows."""

    headings: list[str]
    rows: list[list[str]]

    def __str__(self) -> str:
        lines = [self.headings, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(cells))
            for cells in (list(zip(line, widths, strict=True)) for line in lines)
        )


def write_results(path: Path, machine: Machine, options: Mapping[str, object], **results: object) -> None:
    """Write results with the machine and the options of the benchmark as JSON."""
    chosen = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    write_json({"machine": asdict(machine), "options": chosen, **results}, path)


def write_page(path: Path, title: str, lines: Sequence[str], tables: Mapping[str, Table], chart: Callable[[], Figure]):
    """Write one self-contained page.

    Args:
        path: File to write.
        title: Title of the page.
        lines: Paragraphs below the title: the machine, and how the results were measured.
        tables: Tables by heading.
        chart: Draws the figure at the end of the page.
    """
    with plt.rc_context(STYLE):
        figure = chart()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160)
        plt.close(figure)
    picture = data_address(buffer.getvalue(), "png")
    page = environment().from_string(PAGE).render(title=title, lines=lines, tables=tables, picture=picture)
    write_text(page, path)


def _processor() -> str:
    with open("/proc/cpuinfo") if os.path.exists("/proc/cpuinfo") else io.StringIO() as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else f"{platform.processor() or platform.machine()} CPU"


PAGE = """\
{% extends "base.html" %}
{% block title %}{{ title }}{% endblock %}
{% block width %}76rem{% endblock %}
{% block body %}
<h1>{{ title }}</h1>
{% for line in lines %}
<p>{{ line }}</p>
{% endfor %}
{% for heading, table in tables.items() %}
<h2>{{ heading }}</h2>
<div class="wide"><table>
  <tr>{% for cell in table.headings %}<th>{{ cell }}</th>{% endfor %}</tr>
  {% for row in table.rows %}
  <tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
  {% endfor %}
</table></div>
{% endfor %}
<img class="figure" src="{{ picture }}" alt="{{ title }}: chart">
{% endblock %}
"""
