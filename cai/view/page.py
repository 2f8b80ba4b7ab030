"""One self-contained HTML file, put together so that nothing in it runs or loads but ours.

Data is JSON in script blocks that a browser does not execute; only the assets' own script and style
are allowed to run, by their hashes, and no request is.
"""

import base64
import hashlib
import html
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cai.run import write_atomic
from cai.view.badges import BADGES
from cai.view.page_chain import chain_row
from cai.view.page_index import Index
from cai.view.page_overview import overview
from cai.view.principle_page import Agreement, Drawn, agreements, drawn, principle_rows
from cai.view.transcripts import load_transcripts, read_principles
from cai.words import UNSPACED

ASSETS = Path(__file__).parent / "assets"
STYLES = ("base.css", "page.css", "chain.css", "overview.css")
SCRIPTS = (
    "base.js",
    "settings.js",
    "text.js",
    "diff.js",
    "library.js",
    "list.js",
    "filters.js",
    "chain.js",
    "hits.js",
    "judged.js",
    "charts.js",
    "overview.js",
    "principles.js",
    "notes.js",
    "page.js",
)
GROUP = 400_000
"""Characters of JSON in a packed block: what a browser takes apart in a few milliseconds."""
# A closing tag or a comment would end or change the block; a browser reads the escapes as the
# same characters.
ESCAPES = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


def asset(*names: str) -> str:
    """The assets of these names, one after the other."""
    return "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in names)


def as_json(value: Any) -> str:
    """Compact ASCII JSON, in which an unpaired surrogate stays what it is."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def pack(text: str) -> bytes:
    """JSON, compressed: for what a page need not read before it shows."""
    return zlib.compress(text.encode("ascii"), 6)


def data_block(id: str, value: Any) -> str:
    """A block of data: JSON, or base64 of what `pack` made."""
    if isinstance(value, bytes):
        text, kind = base64.b64encode(value).decode(), "text/plain"
    else:
        text, kind = as_json(value).translate(ESCAPES), "application/json"
    return f'<script type="{kind}" id="{html.escape(id)}">{text}</script>\n'


def source_hash(text: str) -> str:
    """What a Content-Security-Policy calls an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def assemble(title: str, css: str, js: str, data_blocks: Mapping[str, Any], body: str = "") -> str:
    """The whole page. `css`, `js` and `body` are ours; `title` and `data_blocks` may be anybody's.

    JSON values stand before the script, which finds them by id (`block` in base.js). Packed values
    follow it, so that a large page shows before it is read to its end (`unpack` in base.js).
    """
    policy = (
        f"default-src 'none'; script-src {source_hash(js)}; style-src {source_hash(css)}; "
        "base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    plain = (data_block(*item) for item in data_blocks.items() if not isinstance(item[1], bytes))
    packed = (data_block(*item) for item in data_blocks.items() if isinstance(item[1], bytes))
    return "".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="referrer" content="no-referrer">\n'
            f"<title>{html.escape(title)}</title>\n<style>{css}</style>\n</head>\n<body>\n{body}\n",
            *plain,
            f"<script>{js}</script>\n",
            *packed,
            "</body>\n</html>\n",
        )
    )


def write_page(run: Path, out: Path | None = None) -> Path:
    """Write the transcript page of a run (default: `report.html` in it), and return its path.

    A missing stage leaves out what depends on it. Raises ConfigError where a file of the run is
    broken, DiskFull where the page cannot be written."""
    transcripts, constitution = load_transcripts(run), read_principles(run)
    index, rounds, judged = Index(constitution), list[Drawn](), list[Agreement]()
    chains: list[str] = []
    for transcript in transcripts:
        found = drawn(transcript)
        index.add(transcript, found)
        chains.append(as_json(chain_row(transcript, found)))
        rounds += found
        judged += agreements(transcript)
    groups = list(group(chains))
    data: dict[str, Any] = {
        "overview": overview(run, transcripts),
        "principles": principle_rows(index.principle_ids, constitution, rounds, judged),
        "badges": BADGES,
        "chunks": [len(rows) for rows in groups],
        "chains": index.columns,
    }
    packed = {f"chunk-{n}": pack(f"[{','.join(rows)}]") for n, rows in enumerate(groups)}
    title = f"{data['overview']['name']} · transcripts"
    page = assemble(
        title,
        asset(*STYLES),
        asset(*SCRIPTS),
        {"run": data, "unspaced": UNSPACED, **packed},
        asset("page.html", "settings.html"),
    )
    out = out or run / "report.html"
    # Only the title can hold what has no UTF-8: data is ASCII.
    write_atomic(out, page.encode(errors="replace"))
    return out


def group(rows: Iterable[str]) -> Iterator[list[str]]:
    """The rows in order, in groups of about `GROUP` characters."""
    found: list[str] = []
    size = 0
    for row in rows:
        found.append(row)
        size += len(row)
        if size >= GROUP:
            yield found
            found, size = [], 0
    if found:
        yield found
