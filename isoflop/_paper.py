"""The papers' catalogue: what each paper holds, what of it is here, and which of its claims can be tried.

One declarative file a paper, `papers/<name>.toml`; docs/papers.md gives the format. Nothing in a file is code:
conditions and arithmetic are those of `isoflop read --where`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isoflop import _find
from isoflop._columns import closest

FOLDER = Path(__file__).parent / "papers"
PLACES = {
    "law": "laws", "meter": "meters", "lever": "levers", "theory": "theory",
    "verb": "commands", "importer": "importers",
}  # fmt: skip
OWN = "recorded/"  # data that isoflop itself recorded begins so, and lies in the package

_PAPER = {"id", "short", "title", "group", "kind", "what", "headline", "arxiv", "uses", "claim", "why"}
_CLAIM = {"words", "kind", "stands", "because", "expect"}
_EXPECT = {"of", "value", "within", "at_least", "at_most", "one_of"}
_ROWS = {"data", "rename", "where", "derive", "group_low", "ramp", "front", "lowest", "last_mean"}
_LAW = {"law", "axis", "target", "objective", "delta", "weights", "by", "shared", "at"}
KINDS: dict[str, tuple[set[str], set[str]]] = {  # of a claim: keys it may hold, and keys it must
    "fit": (_ROWS | _LAW, {"data", "law"}),
    "forecast": (_ROWS | _LAW | {"fit", "hold_out", "rivals"}, {"data", "law", "hold_out"}),
    "published": (_ROWS | _LAW - {"at", "shared"} | {"coef"}, {"data", "law", "coef"}),
    "chain": (_ROWS | {"first", "second", "at", "fit", "loss", "target"}, {"data", "first", "second", "target", "at"}),
    "rows": (_ROWS | {"column", "sort"}, {"data", "column"}),
    "pass_at_k": (_ROWS | {"ks", "line_at", "few"}, {"data", "ks"}),
    "votes": (_ROWS | {"unit", "first", "score_cost", "stop"}, {"data", "unit", "first"}),
    "trend": (_ROWS | {"axis", "metric"}, {"data", "axis", "metric"}),
    "components": (_ROWS | {"columns", "family", "flops"}, {"data", "columns", "family", "flops"}),
    "meter": (_ROWS | {"meter", "by", "set"}, {"data", "meter"}),
    "planted": ({"law"}, {"law"}),
    "theory": ({"name"}, {"name"}),
}
_WITHOUT_FIGURE = ("planted", "theory")  # the check itself says what is expected


@dataclass(frozen=True)
class Expect:
    """One expected figure: `of` is arithmetic over what the claim's kind finds, or, with `one_of`, a word it finds."""

    of: str
    value: float | None = None
    within: float = 0.0
    at_least: float | None = None
    at_most: float | None = None
    one_of: tuple[str, ...] = ()

    def holds(self, found: float | str) -> bool:
        """Whether the figure found is the one expected."""
        if isinstance(found, str) or self.one_of:
            return found in self.one_of
        low = self.at_least is None or found >= self.at_least
        high = self.at_most is None or found <= self.at_most
        return low and high and (self.value is None or abs(found - self.value) <= self.within)

    def __str__(self) -> str:
        value = [] if self.value is None else [f"{self.value:g}" + (f" +- {self.within:g}" if self.within else "")]
        low = [] if self.at_least is None else [f"at least {self.at_least:g}"]
        high = [] if self.at_most is None else [f"at most {self.at_most:g}"]
        return " and ".join([*value, *low, *high]) or " or ".join(self.one_of)


@dataclass(frozen=True)
class Claim:
    """One claim: words, what to run on which rows, the figures expected, where they stand."""

    words: str
    kind: str
    settings: Mapping[str, Any] = field(repr=False)
    expect: tuple[Expect, ...] = ()
    stands: str = ""
    because: str = ""  # why the figures differ, where they do

    @property
    def data(self) -> str | None:
        """Data set and file, as in "porian/optimal_n.csv"; "recorded/..." is isoflop's own."""
        return self.settings.get("data")

    @property
    def own(self) -> bool:
        """Whether it rests on runs that isoflop itself recorded."""
        return (self.data or "").startswith(OWN)


@dataclass(frozen=True)
class Paper:
    """One paper of the catalogue.

    `id` is its place in the list of papers, None where it is not on that list; `why` says why nothing of it was tried.
    """

    name: str
    short: str
    title: str
    group: str
    kind: str
    what: str
    id: int | None = None
    arxiv: str | None = None
    headline: str = ""
    why: str = ""
    uses: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the claims."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items() if k != "claims"}

    def text(self) -> str:
        """All words of the paper, in which a search looks."""
        own = (self.name, self.short, self.title, self.group, self.kind, self.what, self.headline, self.arxiv or "")
        return " ".join([*own, *self.uses, *(c.words for c in self.claims)]).lower()


def slug(short: str) -> str:
    """A paper's file name from its short name: lower case, everything but letters and digits made one underscore."""
    return re.sub(r"[^a-z0-9]+", "_", short.lower()).strip("_")


def names() -> list[str]:
    """Names of all papers, sorted, without reading one."""
    return sorted(p.stem for p in FOLDER.glob("*.toml"))


def get_paper(name: str) -> Paper:
    """A paper by its name, its number, its arXiv id, or the path of a file of your own.

    Raises LookupError where there is none, ValueError where the file is wrong.
    """
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise LookupError(f"no file {name!r}")
        return read_paper(Path(name))
    if name in names():
        return read_paper(FOLDER / f"{name}.toml")
    for paper in catalogue() if name.replace(".", "").isdigit() else ():
        if name in (str(paper.id), paper.arxiv):
            return paper
    near = closest(name, names())
    raise LookupError(f"no paper named {name!r}" + (f"; did you mean {near[0]}?" if near else "") + " (isoflop papers)")


def catalogue(query: str = "", *, group: str | None = None) -> list[Paper]:
    """Papers that hold every word of the query, of one group where it is given; those on the list come in its order.

    Raises LookupError for a group that there is not, ValueError where a file is wrong.
    """
    papers = [read_paper(FOLDER / f"{name}.toml") for name in names()]
    groups = sorted({p.group for p in papers})
    if group is not None and group not in groups:
        raise LookupError(f"no group {group!r}; there are {', '.join(groups)}")
    words = query.lower().split()
    kept = [p for p in papers if group in (None, p.group) and all(w in p.text() for w in words)]
    return sorted(kept, key=lambda p: (p.id is None, p.id or 0, p.name))


def read_paper(path: Path) -> Paper:
    """One paper from its file. Raises ValueError with the file and the key that is wrong."""
    try:
        whole = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a TOML file ({error})") from error
    _keys(whole, _PAPER, ("short", "title", "group", "kind", "what"), str(path))
    claims = [_claim(entry, f"{path}: claim {k}") for k, entry in enumerate(whole.pop("claim", []), 1)]
    if claims and "why" in whole:
        raise ValueError(f"{path}: why is for a paper of which nothing was tried; this one has claims")
    for used in (uses := whole.pop("uses", [])):
        place, sign, _ = str(used).partition(":")
        if not sign or place not in PLACES:
            raise ValueError(f"{path}: uses {used!r}; write one of {', '.join(PLACES)}, then :NAME, as in law:power")
    return Paper(name=path.stem, uses=tuple(uses), claims=tuple(claims), **whole)


def _claim(entry: Mapping[str, Any], where: str) -> Claim:
    kind = entry.get("kind")
    if kind not in KINDS:
        raise ValueError(f"{where}: kind is one of {', '.join(KINDS)}, got {kind!r}")
    allowed, needed = KINDS[kind]
    _keys(entry, _CLAIM | allowed, ("words", *sorted(needed)), where)
    expect = entry.get("expect", [])
    if bool(expect) == (kind in _WITHOUT_FIGURE):
        raise ValueError(f"{where}: kind {kind!r} {'takes no' if expect else 'needs'} expect")
    for figure in expect:
        _keys(figure, _EXPECT, ("of",), f"{where}, expect")
        if not figure.keys() - {"of", "within"}:
            raise ValueError(f"{where}, expect: {figure['of']!r} needs value (and within), at_least, at_most or one_of")
    settings = {k: v for k, v in entry.items() if k in allowed}
    return Claim(entry["words"], kind, settings, tuple(map(_expect, expect)), entry.get("stands", ""),
                 entry.get("because", ""))  # fmt: skip


def _expect(figure: Mapping[str, Any]) -> Expect:
    words = tuple(figure.get("one_of", ()))
    return Expect(**{k: v for k, v in figure.items() if k != "one_of"}, one_of=words)


def _keys(entry: Mapping[str, Any], known: Iterable[str], needed: Iterable[str], where: str) -> None:
    for key in entry:
        if key not in known:
            near = closest(key, known)
            raise ValueError(f"{where}: no key {key!r}" + (f"; did you mean {near[0]}?" if near else ""))
    for key in needed:
        if key not in entry:
            raise ValueError(f"{where} needs {key}")


def resolve(used: str) -> str:
    """The thing that `uses` names, as it stands. Raises LookupError where there is no such thing."""
    place, _, name = used.partition(":")
    folder, _, leaf = f"{PLACES[place]}/{name}".rpartition("/")
    if leaf not in {n.removesuffix("_") if place == "verb" else n for n in _find.names(folder)}:
        raise LookupError(f"there is no {place} {name!r}, which a paper says it uses")
    return used


def markdown(papers: Iterable[Paper]) -> str:
    """The catalogue as a table; verdicts are not in it, as they depend on the data at hand."""
    head = "| | paper | name | group | here as | claims |\n|---|---|---|---|---|---|"
    return "\n".join([head, *(_line(p) for p in papers)])


def _line(p: Paper) -> str:
    planted, own = sum(c.data is None for c in p.claims), sum(c.own for c in p.claims)
    counts = [(len(p.claims) - planted - own, "on data"), (own, "on own runs"), (planted, "planted")]
    claims = ", ".join(f"{n} {what}" for n, what in counts if n)
    link = f"[{p.short}](https://arxiv.org/abs/{p.arxiv})" if p.arxiv else p.short
    return f"| {p.id or ''} | {link} | `{p.name}` | {p.group} | {', '.join(f'`{u}`' for u in p.uses)} | {claims} |"
