"""A run's report.md: the lesson as Markdown."""

from collections.abc import Sequence

from markupsafe import Markup

from common.reports.figures.album import ALBUM, left_out
from common.reports.lesson import lesson
from common.reports.markdown import templates
from common.reports.tables import Run

SECTIONS = {picture.section for picture in ALBUM.values()}

REPORT = """\
# {{ level }} on {{ data }}

{{ sentence }}

{% if objective %}
## Objective

{{ objective }}

{% endif %}
{% if left %}
## What the level below left

{{ left }}

{% endif %}
{% if done %}
## What was done

{{ bullets(done) }}

{% if changed %}
{{ table(*changed) }}

{% endif %}
{% endif %}
{% if network %}
## The network

{{ table(*network) }}

{% endif %}
## Results

{{ shown["results"] }}{{ shown["rate"] }}{{ table(*results) }}

{{ tta }}

{{ table(*detail) }}

{{ shown["confidence"] }}{{ table(*epochs) }}

## {{ classes }}

{{ shown["classes"] }}{{ table(*recall) }}

## Where it fails, and what it sees

{{ shown["pictures"] }}{% if left_out %}
{{ left_out }}

{% endif %}
## Observations

{{ bullets(observations) }}

## What the number does not say

{{ bullets(limits) }}

## Where it comes from

{{ frozen }}

{{ table(*provenance) }}

{{ shown["data"] }}<details><summary>Settings</summary>

{{ code(settings, "yaml") }}

</details>

## How to run it again

{{ code(command) }}
"""


def report_page(run: Run, below: Run | None, pictures: Sequence[str]) -> str:
    """report.md of a run.

    Args:
        run: the run; below: the one of the level below, where it is compared with it.
        pictures: names, of `ALBUM`, of those that lie beside the page.
    """
    shown = {section: _shown(section, pictures) for section in SECTIONS}
    values = lesson(run, below) | {"shown": shown, "left_out": left_out(pictures)}
    return templates.from_string(REPORT).render(values)


def _shown(section: str, pictures: Sequence[str]) -> Markup:
    """A section's pictures, each with its caption and a line's distance to what follows."""
    parts = []
    for name, picture in ALBUM.items():
        if picture.section == section and name in pictures:
            parts += [f"![{picture.title}]({name}.png)", picture.caption]
    return Markup("".join(f"{part}\n\n" for part in parts if part))
