"""Every word that a strategy sends beside the problem is a setting, as a text or as a file."""

import asyncio
import random
import re

import pytest
from _think_fakes import FakeModel, FakeScore
from test_think_strategies import NAMES, answer, can_run

from isoflop.levers.think._strategy import get_strategy, settings
from isoflop.levers.think._types import Problem, Sample


class Digits:
    """A model without words: digits in steps, and an end by "#"; short calls are cut off. Keeps all it was sent."""

    def __init__(self):
        self.sent = []

    def key(self, text):
        return text[-1:] if "#" in text else None

    async def sample(self, prompt, *, n=1, prefix="", max_tokens=None, seed=0, stop=(), **settings):
        self.sent += [prompt, prefix]
        finish = "length" if max_tokens is not None and max_tokens < 100 else "stop"
        made = []
        for place in range(n):
            digit = random.Random(repr((seed, place, prompt, prefix))).randrange(10)
            text = f"```\n{digit}\n```\n\n{digit}#{digit}"
            made.append(Sample(text.split(stop[0])[0] if stop else text, finish, 9, 9, logprobs=(-1.0,) * 9))
        return made


class Low(FakeScore):
    def _one(self, text):
        return 0.1


FIELDS = {  # of each text that a strategy sends: what it is shown, in the order of the strategy's own settings
    "judge_pick": {"template": "problem solutions count"},
    "tournament": {"template": "problem first second"},
    "verify_k": {"template": "problem solution"},
    "fusion": {"template": "problem solutions"},
    "parallel_summary": {"template": "problem solutions"},
    "revise": {"template": "problem solutions"},
    "evolve": {"template": "problem solutions"},
    "three_axes": {"template": "problem solutions"},
    "self_refine": {"templates": ("problem solution phrase", "problem solution feedback"), "phrases": ("",)},
    "code_tests": {"template": "problem solutions results", "tests": {"texts": 1, "template": "problem"}},
    "hybrid_verify": {"tests": {"texts": 1, "template": "problem"}},
    "forest": {"mend": {"below": 0.3, "template": "problem before step"}},
    "memory": {"bank": {"use": "memories problem", "distil": "problem attempts answer"}},
    "iterative_deepening": {"trigger": ""},
    "budget_forcing": {"marks": {"end": "", "wait": "", "final": ""}},
}
SENT = {
    "iterative_deepening": {"first": 50},
    "memory": {"lessons": [{"title": "1", "description": "2", "content": "3", "success": True, "about": "1+1"}]},
}


def own_texts(value, make):
    """The same settings with every text in place of its fields."""
    if isinstance(value, dict):
        return {k: own_texts(v, make) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(own_texts(v, make) for v in value)
    return make(value) if isinstance(value, str) else value


@pytest.mark.parametrize("name", NAMES)
def test_every_word_a_server_receives_is_a_setting(name, tmp_path):
    """The problem and the model have no words, so that words can come from settings alone; texts and files do alike."""
    can_run(name)
    marks = []

    def text(fields):
        marks.append(f"Q{chr(97 + len(marks))}")
        return " ".join(["", marks[-1], *(f"{{{field}|{marks[-1]}}}" for field in fields.split()), ""])

    def file(template):
        path = tmp_path / f"{hash(template)}.txt"
        path.write_text(template)
        return str(path)

    own = own_texts(FIELDS.get(name, {}), text)
    more = SENT.get(name, {}) | ({"steps": {"final": "#", "depth": 3}} if "steps" in settings(name) else {})
    received = []
    for texts in (own, own_texts(own, file)):
        model = Digits()
        asyncio.run(get_strategy(name)(Problem("p", "1+1"), model, Low(), **more, **texts))
        received.append(model.sent)
    assert received[0] == received[1]
    assert set(re.findall(r"[^\W\d_]+", " ".join(received[0]))) == set(marks)


@pytest.mark.parametrize("name", [n for n in FIELDS if n not in ("iterative_deepening", "budget_forcing")])
def test_a_template_without_its_field_is_refused_before_anything_is_asked(name):
    model = FakeModel()
    with pytest.raises(ValueError, match=f"^{name}.*: the template has no {{"):
        answer(name, model, FakeScore(), **own_texts(FIELDS[name], lambda fields: "nothing"))
    assert model.calls == 0
