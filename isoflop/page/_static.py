"""The page's own files and Plotly's script: read once, kept compressed, sent with a tag so that they are kept."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

_FOLDER = Path(__file__).parent / "static"
# Maps write a style sheet into the page, which its policy forbids, unless an element of this name is there already
_STYLED = re.compile(r'getElementById\("([0-9a-f]{64})"\)')
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class File:
    """A file as it is sent."""

    body: bytes
    packed: bytes
    kind: str
    tag: str

    @classmethod
    def of(cls, body: bytes, suffix: str) -> File:
        tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
        return cls(body, gzip.compress(body, 6, mtime=0), _TYPES[suffix], tag)

    def answer(self, request: web.Request) -> web.Response:
        """The file, or that the browser has it already."""
        headers = {"ETag": self.tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if request.headers.get("If-None-Match") == self.tag:
            return web.Response(status=304, headers=headers)
        packed = "gzip" in request.headers.get("Accept-Encoding", "")
        if packed:
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=self.packed if packed else self.body, content_type=self.kind, charset="utf-8",
                            headers=headers)  # fmt: skip


def own_files() -> dict[str, File]:
    """The page's files by name: nothing else is ever sent."""
    return {p.name: File.of(p.read_bytes(), p.suffix) for p in sorted(_FOLDER.iterdir()) if p.suffix in _TYPES}


def plotly_file() -> File:
    """Plotly's script from its Python package. Raises ImportError with the install line where there is none."""
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise ImportError("the page's figures need plotly: pip install 'isoflop[page]'") from error
    script = get_plotlyjs()
    ids = sorted(set(_STYLED.findall(script)))
    already = f"for(const id of {ids})document.head.append(Object.assign(document.createElement('meta'),{{id}}));\n"
    return File.of((already + script).encode(), ".js")
