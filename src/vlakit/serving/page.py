"""The page at /: what is served, the last questions with their answers, how long answers took; it asks /live itself."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<title>vlakit serve</title><style>
:root { color-scheme: light dark } body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 60rem;
padding: 0 1rem } table { border-collapse: collapse } td, th { text-align: left; padding: .15rem .8rem .15rem 0;
vertical-align: top; overflow-wrap: anywhere } .one { display: flex; gap: 1rem; margin: .8rem 0; flex-wrap: wrap }
.one img { width: 128px; image-rendering: pixelated } .one div { flex: 1; min-width: 12rem; overflow-wrap: anywhere }
.bar { background: #4a7; height: .8rem; min-width: 1px; max-width: 40vw }
code { font-size: .9em }</style></head><body>"""
_SCRIPT = """<script>
const put = (parent, tag, text) => { const e = document.createElement(tag); if (text !== undefined)
  e.textContent = text;  parent.append(e); return e };
async function look() {
  try {
    const live = await (await fetch("live" + location.search)).json();
    document.getElementById("now").textContent = `${live.clients} connections, ${live.waiting} questions waiting`;
    const bars = document.getElementById("latency"); bars.replaceChildren();
    const most = Math.max(1, ...live.latency.map(([, count]) => count));
    for (const [edge, count] of live.latency) { if (!count) continue;
      const row = put(bars, "tr"); put(row, "td", edge); put(row, "td", count);
      put(put(row, "td"), "div").style.width = `${20 * count / most}rem`; row.lastChild.lastChild.className = "bar" }
    const list = document.getElementById("recent"); list.replaceChildren();
    for (const one of live.recent) { const box = put(list, "div"); box.className = "one";
      for (const [camera, url] of Object.entries(one.pictures)) { const image = put(box, "img"); image.src = url;
        image.alt = camera }
      const text = put(box, "div"); put(text, "strong", one.instruction); put(text, "br");
      put(text, "code", one.action.join(" ")); put(text, "br");
      put(text, "small", `${one.dialect}, ${one.ms} ms, ${new Date(one.at * 1000).toLocaleTimeString()}`) }
  } catch (error) { document.getElementById("now").textContent = "the server does not answer" }
}
look(); setInterval(look, 1000);
</script></body></html>"""


def page(info: Mapping[str, Any]) -> str:
    """HTML of a server; info: what it says of itself."""
    rows = "".join(
        f"<tr><th>{escape(str(key))}</th><td>{escape(_plain(value))}</td></tr>" for key, value in info.items()
    )
    parts = [
        f"<h1>{escape(str(info['policy']))}</h1>",
        '<p id="now"></p>',
        f"<table>{rows}</table>",
        '<h2>Time of an answer</h2><table id="latency"></table>',
        '<h2>Last questions</h2><div id="recent"></div>',
    ]
    return _HEAD + "".join(parts) + _SCRIPT


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(one)}" for key, one in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "-"
    return "-" if value is None else str(value)
