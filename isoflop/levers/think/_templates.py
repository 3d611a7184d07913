"""What models are asked beside the problem: texts of judges, checkers and refiners, and how your own takes their place.

Every text that a strategy or verifier adds to a problem is a setting: a text with {fields}, or the path of a text file
that holds one, both read by `template_of`. Other braces stay as they are.
"""

from __future__ import annotations

import re
from pathlib import Path

from isoflop.levers.think._ask import picked, said_yes

# judge_pick: LLM as a judge (arXiv 2306.05685) has pairs and grades; this is its task over a list, in our words
PICK = """{problem}

{solutions}

Compare the {count} solutions step by step and decide which one is correct, or closest to it. End with the line
"Choice: k", where k is its number."""

# tournament: the parts of MT-Bench's pairwise prompt (arXiv 2306.05685: question, two answers under headings, reasons
# before a verdict in a fixed form), in our words; it asks for correctness alone, and has no draw
COMPARE = """{problem}

### Solution 1
{first}

### Solution 2
{second}

Compare the two solutions step by step and decide which one is correct. End with the line "Choice: 1" or "Choice: 2"."""

# verify_k and the verifier `judge`: GenRM (arXiv 2408.15240) asks to verify step by step and ends with
# "Verification: Is the answer correct (Yes/No)?"; the same question in our words, and that line is read too
VERIFY = """{problem}

### Proposed solution
{solution}

Check the solution step by step for mistakes. End with the line "Verdict: yes" if its answer is correct, or
"Verdict: no" if it is not."""

# fusion: FusioN (arXiv 2510.00931) describes a judge that writes one answer from the best parts; the wording is ours
FUSE = """{problem}

{solutions}

Above are several solutions to the same problem. None needs to be right as a whole. Weigh them, take what is best in
each, mend what is wrong, and write one complete solution of your own, with its final answer in the same form."""

# self_refine: Self-Refine (arXiv 2303.17651) says of sums that there is an error and asks which, block by block; this
# does not presume one, and the wording is ours
CRITIQUE = """{problem}

### Solution
{solution}

{phrase}
If the solution is correct as it stands, end with the line "Verdict: yes", otherwise with "Verdict: no"."""

REFINE = """{problem}

### Solution
{solution}

### Feedback
{feedback}

Write an improved, complete solution that takes the feedback into account, with its final answer in the same form."""

_GENRM = re.compile(r"correct\W{0,3}\(yes/no\)\W{0,6}(yes|no)\b", re.IGNORECASE)
_LETTER = re.compile(r"\[\[([A-Z])\]\]")


def template_of(given: str | Path, who: str, *needs: str) -> str:
    """A template's text: `given` itself, or what stands in the file it names.

    given: a path, or a text; one line without {fields} that ends in .txt or .md, or that is a file's name, is a path.
    needs: fields that must be there; {name|Word} is one too, and says what stands before the numbers of its headings.
    who: whose setting it is, for the message. Raises ValueError where there is no such file, or a field is missing.
    """
    named = isinstance(given, Path) or _names_file(given)
    text = _read(Path(given), who) if named else str(given)
    missing = [f"{{{name}}}" for name in needs if not re.search(rf"\{{{name}[}}|]", text)]
    if missing:
        shown = f"template in {given}" if named else "template"
        raise ValueError(f"{who}: the {shown} has no {' and no '.join(missing)}: what the model is to see goes there")
    return text


def _read(path: Path, who: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else "it cannot be read as text"
        raise ValueError(f"{who}: the template should stand in {path}, but {why}") from None


def _names_file(text: str) -> bool:
    if "\n" in text or re.search(r"\{\w+\}", text):
        return False
    return text.endswith((".txt", ".md")) or (0 < len(text) < 256 and Path(text).is_file())


def verdict_of(text: str) -> bool | None:
    """What a check says: "Verdict: yes", or GenRM's "Is the answer correct (Yes/No)? Yes"; None for neither."""
    said = said_yes(text)
    if said is None and (found := _GENRM.findall(text)):
        return bool(found[-1].lower() == "yes")
    return said


def choice_of(text: str, n: int) -> int | None:
    """The place (from 0) that a judge names: "Choice: 2", or MT-Bench's [[B]]; None where it is none of the n."""
    place = picked(text, n)
    if place is None and (found := _LETTER.findall(text)):
        letter = ord(found[-1]) - ord("A")
        return letter if letter < n else None
    return place
