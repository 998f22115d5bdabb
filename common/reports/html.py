"""How HTML is written. Nothing here imports torch: a page may be there before it is."""

from pathlib import Path

import jinja2
from markupsafe import Markup

HERE = Path(__file__).parent / "templates"

# every value escaped, an unknown name an error
html = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
html.globals["read"] = lambda name: Markup((HERE / name).read_text("utf-8"))  # a file beside it
