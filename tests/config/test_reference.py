"""The table of all options in configs/README.md is up to date.

Run `python tests/config/test_reference.py` to regenerate it after changing an option.
"""

import json
from dataclasses import fields, is_dataclass
from pathlib import Path

import docstring_parser

from trunkfold.config.rules import describe, option_types, option_values
from trunkfold.config.schema import Config

PAGE = Path(__file__).parents[2] / "configs" / "README.md"
BEGIN, END = "<!-- options: begin -->\n", "<!-- options: end -->\n"


def options_table() -> str:
    """Return Markdown tables, one per section: option, default, meaning and accepted values."""
    lines, values, types = [], option_values(Config()), option_types(Config)
    for section in fields(Config):
        nested = is_dataclass(section.type)
        text = docstring_parser.parse((section.type if nested else Config).__doc__)
        described = {param.arg_name: param.description.replace("\n", " ") for param in text.params}
        lines += ["", f"**{section.name}**: {text.short_description}" if nested else f"**{section.name}**", ""]
        lines += ["| option | default | meaning |", "|---|---|---|"]
        for name in types:
            if name.partition(".")[0] == section.name:
                default = json.dumps(values[name], default=str).strip('"')
                meaning = f"{described[name.rpartition('.')[2]]} ({describe(types[name])})".replace("|", "\\|")
                lines.append(f"| `{name}` | `{default}` | {meaning} |")
    return "\n".join(lines[1:]) + "\n"


def test_the_page_lists_every_option_with_its_default():
    table = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert table == options_table(), "run python tests/config/test_reference.py"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + options_table() + END + rest.partition(END)[2], encoding="utf-8")
