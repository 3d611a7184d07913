"""The catalogue of papers as the page lists it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from isoflop._paper import Paper
from isoflop._paper_check import Result, standing


def line(paper: Paper, results: Iterable[Result]) -> dict[str, Any]:
    """One paper of a listing: title, one line, what of it runs here, the verdict so far."""
    return {
        "name": paper.name, "id": paper.id, "short": paper.short, "title": paper.title, "arxiv": paper.arxiv,
        "group": paper.group, "kind": paper.kind, "what": paper.what, "uses": list(paper.uses),
        "claims": len(paper.claims), "verdict": standing(results),
    }  # fmt: skip


def entry(paper: Paper, results: list[Result]) -> dict[str, Any]:
    """A paper whole, with its claims."""
    return line(paper, results) | {
        "headline": paper.headline, "why": paper.why, "results": [r.to_dict() for r in results],
    }  # fmt: skip
