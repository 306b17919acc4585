"""The page at /docs: every route and what it is for. Loads nothing and runs nothing; the browser is told so."""

import base64
import hashlib
import html
from typing import Any, Final

_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{margin:0;font:15px/1.6 system-ui,sans-serif}"
    "body{background:light-dark(#fbfbfc,#15181d);color:light-dark(#1b1f26,#e8eaee)}"
    "main{max-width:54rem;margin:0 auto;padding:2rem 1.25rem 4rem}h1{margin:0;font-size:1.6rem;letter-spacing:-.01em}"
    "p,b{color:light-dark(#5b6472,#9aa3b2)}b{font-weight:500;font-size:.85em}a{color:inherit}"
    "code{font:.9em ui-monospace,monospace}table{border-collapse:collapse;width:100%;margin-top:1.5rem}"
    "td{padding:.45rem 1rem .45rem 0;border-bottom:1px solid light-dark(#d8dce3,#363b45)}"
)
POLICY: Final = (
    "default-src 'none'; style-src 'sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode() + "'"
)
"""The content security policy that the page is sent with."""


def page(described: dict[str, Any]) -> str:
    """List the routes of an OpenAPI document."""
    rows = "".join(
        f"<tr><td><b>{method.upper()}</b><td><code>{html.escape(path)}</code><td>{html.escape(route['summary'])}"
        for path, methods in described["paths"].items()
        for method, route in methods.items()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Baton</title><style>{_STYLE}</style><main><h1>Baton</h1>"
        '<p>Requests and answers are described in <a href="/openapi.json">openapi.json</a> (OpenAPI 3.1), which any '
        f"viewer or generator of clients reads.<table>{rows}</table></main></html>\n"
    )
