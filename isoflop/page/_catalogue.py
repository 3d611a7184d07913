"""Laws and papers as the page lists them: read once, in a thread, and searched in memory."""

from __future__ import annotations

import asyncio
from typing import Any

from isoflop._paper import Paper
from isoflop.page import _papers


class Catalogue:
    """The laws and papers of the package. data: the folder of public data sets, or None."""

    def __init__(self, data: str | None) -> None:
        self._data = data
        self._texts: dict[str, str] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        self._found: list[Paper] = []
        self._laws: list[dict[str, Any]] = []
        self._reading: asyncio.Future[None] | None = None

    async def read(self) -> None:
        """Read everything, once however often it is asked for."""
        if self._reading is None:
            self._reading = asyncio.get_running_loop().run_in_executor(None, self._read)
        await asyncio.shield(self._reading)

    async def laws(self) -> list[dict[str, Any]]:
        """Each law: name, formula, columns, target, source."""
        await self.read()
        return self._laws

    async def search(self, query: str, group: str | None) -> dict[str, Any]:
        """Papers that hold every word of the query, and the groups there are."""
        await self.read()
        words = query.lower().split()
        kept = [
            self._entries[p.name]
            for p in self._found
            if group in (None, p.group) and all(w in self._texts[p.name] for w in words)
        ]
        short = [{k: v for k, v in e.items() if k not in ("results", "headline", "why")} for e in kept]
        return {"papers": short, "total": len(self._found), "groups": sorted({p.group for p in self._found})}

    async def paper(self, name: str) -> dict[str, Any]:
        """A paper whole."""
        await self.read()
        return self._entries[self.known(name)]

    def known(self, name: str) -> str:
        """The name, where there is such a paper. Raises LookupError."""
        if name not in self._entries:
            raise LookupError("there is no such paper")
        return name

    def learn(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Keep the verdicts that a job worked out."""
        self._entries[entry["name"]] = entry
        return entry

    def _read(self) -> None:
        from isoflop import _find
        from isoflop._law import get_law
        from isoflop._paper import catalogue
        from isoflop._paper_check import check

        self._found = catalogue()
        results = check(self._found, data=self._data, run=False)
        self._texts = {p.name: p.text() for p in self._found}
        self._entries = {p.name: _papers.entry(p, results[p.name]) for p in self._found}
        laws = [get_law(name) for name in _find.names("laws")]
        self._laws = [
            {"name": law.name, "formula": law.formula, "columns": list(law.columns), "target": law.target,
             "coefs": list(law.coefs), "doc": law.doc.split("\n", 1)[-1].strip()}
            for law in laws
        ]  # fmt: skip
