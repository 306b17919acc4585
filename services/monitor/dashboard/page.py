"""The page as it is sent: one file, put together once from those beside this module, with a policy that fits it.

What instances call themselves never gets into it on this side; the script writes it as text.
"""

import base64
import hashlib
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
SCRIPTS: Final = ("dom", "figures", "charts", "picture", "scenario", "fleet", "events", "orders", "live")
"""In this order they are one module; each uses names of those before it."""


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


STYLE: Final = _read("page.css")
SCRIPT: Final = "\n".join(_read(f"{name}.js") for name in SCRIPTS)
PAGE: Final = _read("page.html").replace("/* style */", STYLE).replace("/* script */", SCRIPT)
POLICY: Final = (
    f"default-src 'none'; connect-src 'self'; img-src data:; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)};"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
