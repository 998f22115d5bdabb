"""How HTML is written: Jinja2, every value escaped, an unknown name an error."""

from pathlib import Path

import jinja2

HERE = Path(__file__).parent / "templates"

html = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
