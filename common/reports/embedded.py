"""What a page carries in itself: pictures as data addresses, and a gallery as JSON."""

import base64
import io
import json

import numpy as np
from PIL import Image

from common.reports.exhibits import Gallery, Level

COLUMNS = 12  # of the sheet of thumbnails
MAP_SIDE = 16  # places, at most, of a map on the page


def uri(content: bytes, kind: str) -> str:
    """A file as an address that holds it: `kind` is "png", "webp" ..."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def gallery_json(gallery: Gallery, shown: list[Level]) -> str:
    """What the page's script shows, as JSON that cannot end its script element."""
    import matplotlib

    run = shown[0].run
    count, _, height, width = gallery.images.shape
    rows = -(-count // COLUMNS)
    sheet = np.zeros((rows * height, COLUMNS * width, 3), np.uint8)
    for i, image in enumerate(gallery.images):
        y, x = i // COLUMNS * height, i % COLUMNS * width
        sheet[y : y + height, x : x + width] = image.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", quality=85)
    right = {level.name: level.run.predictions == run.labels for level in shown}
    colours = matplotlib.colormaps["inferno"](np.arange(256), bytes=True)[:, :3]
    content = {
        "sprite": uri(buffer.getvalue(), "webp"),
        "columns": COLUMNS,
        "size": [width, height],
        "classes": list(run.classes),
        "truths": run.labels[gallery.positions].tolist(),
        "answers": {name: values.tolist() for name, values in gallery.answers.items()},
        "confidence": {name: v.round(3).tolist() for name, v in gallery.confidence.items()},
        "maps": {name: _bytes(maps) for name, maps in gallery.maps.items()},
        "colours": colours.tolist(),
        "total": len(run.labels),
        "changes": {
            f"{a} {b}": {
                "fixed": int((~right[a] & right[b]).sum()),
                "broken": int((right[a] & ~right[b]).sum()),
            }
            for a in right
            for b in right
        },
    }
    return json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")


def _bytes(maps: np.ndarray) -> dict:
    """Maps (n, h, w) as bytes in base 64, thinned out where they are large."""
    step = -(-max(maps.shape[1:]) // MAP_SIDE)
    maps = np.ascontiguousarray(maps[:, ::step, ::step])
    values = np.round(255 * maps).astype(np.uint8).tobytes()
    text = base64.b64encode(values).decode()
    return {"width": maps.shape[2], "height": maps.shape[1], "values": text}
