"""What was found, as a folder to open: check.html with the sheets in it, the sheets as PNG, the numbers as JSON."""

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from raypatch.data.check.findings import Findings
from raypatch.data.check.sheet import draw_pairs, draw_sheet
from raypatch.storage.files import write_atomically

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; color: #1a1a1a; }
img { max-width: 100%; height: auto; image-rendering: auto; }
pre { overflow-x: auto; background: #f5f5f5; padding: .75rem; font-size: .85rem; }
figure { margin: 1rem 0; overflow-x: auto; }
li { margin: .3rem 0; }
/* On a phone a sheet is pushed aside, not made too small to see. */
@media (max-width: 50rem) { figure img { max-width: none; } }
"""


def write_check(findings: Findings, folder: Path, notes: Sequence[str] = ()) -> Path:
    """Write contact.png, pairs.png where images repeat, check.json and check.html; return that.

    notes: what was said when the source was packed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sheet = draw_sheet(findings)
    pairs = draw_pairs(findings.path, findings)
    write_atomically(folder / "contact.png", _png(sheet))
    if pairs is not None:
        write_atomically(folder / "pairs.png", _png(pairs))
    write_atomically(folder / "check.json", json.dumps(_numbers(findings), indent=1).encode() + b"\n")
    path = folder / "check.html"
    write_atomically(path, _page(findings, sheet, pairs, notes).encode())
    return path


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def _numbers(findings: Findings) -> dict[str, object]:
    twins = [[twin.split, twin.index, twin.of_split, twin.of_index, twin.likeness] for twin in findings.twins]
    balance = {name: findings.balance[:, number].tolist() for number, name in enumerate(findings.classes)}
    return {
        "file": findings.path.name,
        "shape": list(findings.shape),
        "images": findings.counts,
        "patients": findings.patients,
        "classes": balance,
        "mean_brightness": {split: round(each.means.mean(), 2) for split, each in findings.brightness.items()},
        "twins": twins,
        "warnings": findings.warnings,
    }


def _page(findings: Findings, sheet: Image.Image, pairs: Image.Image | None, notes: Sequence[str]) -> str:
    name = html.escape(findings.path.name)
    warnings = "".join(f"<li>{html.escape(warning)}</li>" for warning in findings.warnings)
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{name}: check</title>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<style>{_STYLE}</style></head><body><h1>{name}</h1>",
        f"<h2>To look after</h2><ul>{warnings or '<li>nothing was found</li>'}</ul>",
        f"<pre>{html.escape(chr(10).join(findings.facts()))}</pre>",
    ]
    if notes:
        parts.append(f"<h2>How it was packed</h2><pre>{html.escape(chr(10).join(notes))}</pre>")
    parts.append(f"<h2>Some images of each class</h2>{_figure(sheet, 'images by split and class')}")
    if pairs is not None:
        parts.append(f"<h2>Images that repeat one of an earlier split</h2>{_figure(pairs, 'pairs of alike images')}")
    return "\n".join([*parts, "</body></html>\n"])


def _figure(picture: Image.Image, caption: str) -> str:
    data = base64.b64encode(_png(picture)).decode()
    return f"<figure><img src='data:image/png;base64,{data}' alt='{caption}'></figure>"
