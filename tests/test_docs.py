"""What the documents show, runs; the site that they make builds, and loads nothing from elsewhere."""

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import planted_table, write_csv

import isoflop
from isoflop import _find
from isoflop._cli import cli

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SHELL, DATA = ("", "sh", "bash", "console"), ("csv", "json", "toml", "text", "yaml")
SYNOPSES = "cli.md"  # its blocks are grammar; that their options exist is checked below
BLOCK = re.compile(
    r"(?:^[ ]*<!-- not run: (?P<why>[^\n]+?) -->\n+)?"
    r"^(?P<indent>[ ]*)(?P<fence>```+)(?P<language>\w*)(?: title=\"(?P<title>[\w./-]+)\")?[^\n]*\n"
    r"(?P<code>.*?)^[ ]*(?P=fence)[ ]*$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block. why: the reason for not running it, empty where it is run. title: the file that it is."""

    place: str
    language: str
    code: str
    why: str
    title: str


def blocks(path, language=None):
    """The fenced blocks of a page. A reason stands before its block as <!-- not run: ... -->."""
    text = (ROOT / path).read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        part = match.groupdict(default="")
        place = f"{path}:{text.count(chr(10), 0, match.start('fence')) + 1}"
        code = textwrap.dedent(part["code"])
        found.append(Block(place, part["language"], code, part["why"], part["title"]))
    return [b for b in found if language in (None, b.language)]


# ---- what pages need that they do not make ---------------------------------------------------------------------------


def two_families(folder):
    """runs.csv: four families on a power law, the new one with two runs; tasks.csv: the same as tasks."""
    rng = np.random.default_rng(0)
    rows = [
        (name, f, (1.7 + a * (f / 1e18) ** -0.12) * np.exp(0.004 * rng.standard_normal()))
        for name, a, count in (("a", 1.5, 7), ("b", 1.8, 7), ("c", 1.6, 7), ("d", 1.9, 7), ("new", 1.7, 2))
        for f in np.geomspace(1e18, 1e20, count)
    ]
    lines = [f"{name},{flops:g},{loss:.5f}" for name, flops, loss in rows]
    (folder / "runs.csv").write_text("\n".join(["family,flops,loss", *lines]) + "\n")
    tasks = [line.replace("a,", "arc,", 1) for line in lines[:14]]
    (folder / "tasks.csv").write_text("\n".join(["task,flops,loss", *tasks]) + "\n")


def two_recipes(folder):
    """runs.csv: two recipes whose errors cross along gflops."""
    lines = [
        f"{name},{g:g},{a * g**-b:.5f}"
        for name, a, b in (("plain", 2.0, 0.10), ("other", 3.0, 0.15))
        for g in np.geomspace(1e2, 1e5, 9)
    ]
    (folder / "runs.csv").write_text("\n".join(["namespace,gflops,error", *lines]) + "\n")


def samples(folder):
    """samples.jsonl: 40 problems, 16 graded samples each, with scores and tokens."""
    rng = np.random.default_rng(0)
    lines = []
    for k, rate in enumerate(rng.beta(1.2, 1.5, 40)):
        for right in rng.random(16) < rate:
            answer = "right" if right else str(rng.integers(3))
            row = {"problem": f"p{k}", "answer": answer, "correct": int(right), "score": right + rng.normal(0, 0.8)}
            lines.append(json.dumps(row | {"gen_tokens": int(rng.integers(80, 120))}))
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")


def saved_fit(folder):
    """fit.json, of runs that the package holds, and the file of the ladder that made them."""
    isoflop.fit("chinchilla", isoflop.recorded("python_source"), draws=40).save(folder / "fit.json")
    ladder = ROOT / "isoflop" / "recorded" / "python_source" / "ladder.toml"
    (folder / "ladder.toml").write_text(ladder.read_text())


PREPARE = {
    "families.md": two_families,
    "curves.md": two_recipes,
    "replay.md": samples,
    "planning.md": saved_fit,
}


# ---- running ---------------------------------------------------------------------------------------------------------


def run_block(block, scope):
    """Run one block in the working directory; what is data, or a file by its title, is written there."""
    if block.title:
        Path(block.title).write_text(block.code)
    elif block.language == "python" and (file := re.fullmatch(r'--8<-- "(.+)"\n', block.code)):
        assert (DOCS / file[1]).is_file(), f"{block.place}: no {file[1]}"  # drawn where the site is built
    elif block.language == "python":
        try:
            exec(compile(block.code, block.place, "exec"), scope)
        except ImportError as error:
            skip_without_extra(error, block.place)
    elif block.language in SHELL:
        for line in block.code.replace("\\\n", " ").splitlines():
            run_line(shlex.split(line, comments=True), block.place)
    else:
        assert block.language in DATA, f"{block.place}: say why {block.language} is not run: <!-- not run: ... -->"


def skip_without_extra(error, place):
    """Skip where a package of an extra is missing; what is isoflop's own must be there."""
    if (error.name or "").startswith("isoflop"):
        raise error
    pytest.skip(f"{place}: {error}")


def run_line(words, place):
    if not words:
        return
    if words[0] == "isoflop":
        done = CliRunner().invoke(cli, words[1:])
        if isinstance(done.exception, ImportError):
            skip_without_extra(done.exception, place)
        assert done.exit_code == 0, f"{place}: {shlex.join(words)}: {done.output}{done.stderr}{done.exception!r}"
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for name in re.findall(r"isoflop\[([\w,]+)\]", " ".join(words)):
            assert set(name.split(",")) <= set(extras), f"{place}: there is no extra {name}"
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"{place}: no such target"
    else:
        raise AssertionError(f"{place}: {words[0]} is not run here; say why: <!-- not run: ... -->")


PAGES = sorted(p.relative_to(ROOT).as_posix() for p in DOCS.rglob("*.md"))
RUN = [p for p in PAGES if Path(p).name != SYNOPSES and blocks(p)]


@pytest.mark.parametrize("page", RUN)
def test_every_block_of_a_page_runs_or_says_why_not(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    PREPARE.get(Path(page).name, lambda folder: None)(tmp_path)
    scope = {}
    for block in blocks(page):
        if block.why:
            assert len(block.why) > 8, f"{block.place}: {block.why!r} is no reason"
        else:
            run_block(block, scope)


def test_a_block_that_cannot_be_run_is_found():
    text = "```\nrm -rf x\n```\n\n<!-- not run: needs a server -->\n```sh\ncurl x\n```\n\n```rust\nx\n```\n"
    found = [m.groupdict(default="") for m in BLOCK.finditer(text)]
    assert [b["why"] for b in found] == ["", "needs a server", ""]
    for part in (found[0], found[2]):
        with pytest.raises(AssertionError, match="say why"):
            run_block(Block("here", part["language"], part["code"], "", ""), {})


def test_readme_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = planted_table()
    table["N"], table["D"] = table.pop("params"), table.pop("tokens")
    write_csv(tmp_path / "runs.csv", table)
    scope = {}
    shown = blocks("README.md", "python")
    assert shown
    for block in shown:
        exec(block.code, scope)


def test_the_law_in_contributing_works(tmp_path):
    from isoflop import check_law

    path = tmp_path / "saturating.py"
    path.write_text(blocks("CONTRIBUTING.md", "python")[0].code)
    assert check_law(f"{path}:saturating").ok


# ---- the command line ------------------------------------------------------------------------------------------------


def commands():
    """Every verb, and the verbs below it."""
    for name in _find.names("commands"):
        yield (command := _find.get("commands", name))
        if isinstance(command, click.Group):
            context = click.Context(command)
            yield from (command.get_command(context, part) for part in command.list_commands(context))


@pytest.mark.parametrize("verb", [n.removesuffix("_") for n in _find.names("commands")])
def test_every_verb_is_in_the_documents(verb):
    assert f"isoflop {verb}" in (DOCS / "cli.md").read_text()
    assert CliRunner().invoke(cli, [verb, "--help"]).exit_code == 0


def test_options_in_the_documents_exist():
    text = (DOCS / "cli.md").read_text()
    for line in re.findall(r"isoflop (\w+) FILE .*?```", text, flags=re.DOTALL):
        assert line in text
    known = {option for command in commands() for p in command.params for option in p.opts}
    for option in set(re.findall(r"--[a-z][a-z-]+", text)):
        assert option in known, option


# ---- the site --------------------------------------------------------------------------------------------------------


def test_links_between_documents_lead_somewhere():
    made = {DOCS / "gallery" / f"{p.stem}.png" for p in (DOCS / "gallery").glob("[!_]*.py")}  # while the site is built
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target and page.parent / target not in made:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


class Loaded(HTMLParser):
    """What a page loads by itself: scripts, styles, images, frames; links that a reader may follow are not loaded."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next", "alternate"):
            self.found.append(given.get("href") or "")
        elif tag != "a":
            self.found += [given[name] or "" for name in ("src", "srcset", "data", "poster") if name in given]


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    for name in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(name, reason=f"no {name}: pip install 'isoflop[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        text = page.read_text()
        outside = [a for a in Loaded(text).found if re.match(r"\s*(?:[a-z]+:)?//", a)]
        assert not outside, (page.name, outside)
        assert "mermaid" not in text  # would be fetched
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:[a-z]+:)?//", style.read_text()), style.name
    for script in (DOCS / "gallery").glob("[!_]*.py"):
        assert (tmp_path / "gallery" / f"{script.stem}.png").read_bytes().startswith(b"\x89PNG"), script.name
        assert f"(gallery/{script.stem}.png)" in (DOCS / "gallery.md").read_text(), script.name
