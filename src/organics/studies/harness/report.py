"""All results of a folder on one self-contained HTML page."""

import base64
from html import escape
from pathlib import Path
from typing import Any

from organics.files.atomic import write_atomically
from organics.studies.catalog import TARGETS
from organics.studies.harness.runner import but_not, read, verdict_in_words

_STYLE = """
:root { color-scheme: light dark; --ground: #fdfdfc; --text: #1c1c1a; --faint: #66665f;
  --line: #dcdcd6; --card: #ffffff; --holds: #00795c; --partly: #8a5a00; --fails: #b03a00; }
@media (prefers-color-scheme: dark) { :root { --ground: #161614; --text: #e8e8e2;
  --faint: #a3a39a; --line: #3a3a36; --card: #1f1f1c; --holds: #4cc9a6; --partly: #e5b04c;
  --fails: #ff8a5c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--ground);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin: 0 0 .5rem; }
a { color: inherit; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: 1rem; margin: 1.5rem 0; }
figure { margin: 1rem 0; background: #ffffff; border-radius: .25rem; padding: .5rem; }
figcaption { color: #55554f; font-size: .85rem; max-width: 50rem; margin: .5rem auto 0; }
figure img { display: block; width: 100%; max-width: 50rem; height: auto; margin: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid var(--line); }
.holds { color: var(--holds); } .partly { color: var(--partly); }
.does-not-hold { color: var(--fails); } .not-run, .undecided, .faint { color: var(--faint); }
.verdict { font-weight: 600; white-space: nowrap; }
code { font-size: .9em; } .faint { font-size: .85rem; }
"""


def write(folder: Path) -> Path:
    """Write `report.html` with all results in `folder`, and return its path."""
    documents = [found for target in TARGETS if (found := read(target, folder)) is not None]
    path = folder / "report.html"
    write_atomically(path, page(folder, documents).encode())
    return path


def page(folder: Path, documents: list[dict[str, Any]]) -> str:
    """The page, with the pictures of `folder` in it."""
    rows = [
        f'<tr><td><a href="#{d["name"]}">{escape(d["title"])}</a></td>'
        f"<td>{escape(d['paper'] or '')}</td><td>{escape(d['here'])}</td>"
        f"<td>{_verdict(d)}<br><span class=faint>{escape(but_not(d))}</span></td></tr>"
        for d in documents
    ]
    sections = [_section(folder, document) for document in documents]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<title>ORGaNICs: the paper's claims, run again</title>",
            f"<style>{_STYLE}</style></head><body>",
            "<h1>The paper's claims, run again</h1>",
            "<p>Rawat, Heeger &amp; Martiniani, <i>Unconditional stability of a recurrent neural "
            "circuit implementing divisive normalization</i>, NeurIPS 2024 (arXiv:2409.18946). "
            "Every verdict is computed from the numbers of the run.</p>",
            '<div class="scroll"><table><thead><tr><th>target</th><th>paper</th><th>here</th>'
            "<th>verdict</th></tr></thead><tbody>",
            *rows,
            "</tbody></table></div>",
            *sections,
            "</body></html>\n",
        ]
    )


def _section(folder: Path, document: dict[str, Any]) -> str:
    checks = [
        (
            c["what"],
            c["paper"] or "",
            c["here"],
            c["tolerance"] or "",
            {True: "yes", False: "no", None: "not run"}[c["holds"]],
            "yes" if c["decides"] else "no",
        )
        for c in document["checks"]
    ]
    table = document["table"]
    size = "quick, smaller samples" if document["quick"] else "full size"
    where = f"{document['machine']['processor']}, {document['machine']['cores']} cores"
    return "\n".join(
        [
            f'<section id="{document["name"]}"><h2>{escape(document["title"])}</h2>',
            f"<p>{escape(document['claim'])} <span class=faint>{escape(document['source'])}</span>"
            f"<br>{_verdict(document)}: {escape(document['here'])}</p>",
            f"<figure>{_picture(folder, document)}"
            f"<figcaption>{escape(document['caption'])}</figcaption></figure>",
            "" if table is None else _table(table["columns"], table["rows"]),
            _table(("checked", "paper", "here", "tolerance", "holds", "decides"), checks),
            f'<p class="faint"><code>{escape(document["command"])}</code>; {size}, seed '
            f"{document['seed']}, {_seconds(document)} on {escape(where)}; organics "
            f"{escape(document['versions']['organics'])}, jax "
            f"{escape(document['versions']['jax'])}</p></section>",
        ]
    )


def _seconds(document: dict[str, Any]) -> str:
    known = document["seconds"]
    return "an unknown time" if known is None else f"{known:g} s"


def _verdict(document: dict[str, Any]) -> str:
    kind = document["verdict"].replace(" ", "-")
    return f'<span class="verdict {kind}">{verdict_in_words(document)}</span>'


def _picture(folder: Path, document: dict[str, Any]) -> str:
    name = f"{document['name']}.png"
    try:
        content = base64.b64encode((folder / name).read_bytes()).decode()
    except OSError:
        return f"{name} is missing: run the command below again."
    alternative = escape(f"{document['title']}. {document['here']}", quote=True)
    return f'<img alt="{alternative}" src="data:image/png;base64,{content}">'


def _table(columns, rows) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )
