"""Learned roundings, and work that is taken up where it stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'isoflop[torch]'")
pytest.importorskip("safetensors")

from _precision_models import (  # noqa: E402
    SHORT,
    changed,
    gpt,
    ids,
    one_thread,  # noqa: F401
    quantise,
)
from torch import nn  # noqa: E402

from isoflop import _find  # noqa: E402
from isoflop.levers.precision._apply import Target, target  # noqa: E402
from isoflop.levers.precision._blocks import split  # noqa: E402
from isoflop.levers.precision._plain import part, plain  # noqa: E402
from isoflop.levers.precision._reconstruct import Learned, Learning, block_outputs, calls, find_blocks  # noqa: E402
from isoflop.levers.precision._sites import outputs  # noqa: E402
from isoflop.levers.precision._work import Work  # noqa: E402


def test_learning_lowers_a_blocks_error_and_starts_at_rounding():
    model = gpt()
    lrq = _find.get("levers/precision", "lrq")
    start = lrq(model, [ids()], target=target(3, group=0), learning=Learning(0, 1e-3, 0))[1]
    learned = lrq(model, [ids()], target=target(3, group=0), learning=Learning(40, 3e-3, 0))[1]
    full = lrq(model, [ids()], target=target(3, group=0), rank=0, learning=SHORT)[1]
    nearest, made = (plain(quantise("round_nearest", model, target(3, group=0))[0]), None)
    assert start.layers[0]["error"] == pytest.approx(start.layers[0]["error_nearest"])
    assert learned.layers[0]["error"] < 0.8 * learned.layers[0]["error_nearest"]
    assert learned.layers[0]["learned"] > 0
    assert full.layers[0]["learned"] != learned.layers[0]["learned"]
    made = lrq(model, [ids()], target=target(3, group=0), learning=Learning(0, 1e-3, 0))[0]
    assert changed(outputs(nearest, ids()), outputs(made, ids())) < 1e-3
    with pytest.raises(ValueError, match="lrq learns roundings to whole numbers"):
        lrq(model, [ids()], target=Target("fp4_e2m1"))


@pytest.mark.parametrize("method", ["awq", "lrq"])
def test_work_is_taken_up_where_it_stopped(method, tmp_path, monkeypatch):
    model, wanted = gpt(), target(3, group=8)
    whole = quantise(method, model, wanted)[0]
    stopped, keep = [], Work.keep

    def interrupted(self, name, parts):
        keep(self, name, parts)
        stopped.append(name)
        if len(stopped) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Work, "keep", interrupted)
    if method == "lrq":  # two blocks: stop after the first
        stopped.append("")
    with pytest.raises(KeyboardInterrupt):
        quantise(method, model, wanted, work=Work(tmp_path))
    monkeypatch.setattr(Work, "keep", keep)
    resumed = quantise(method, model, wanted, work=Work(tmp_path))[0]
    assert torch.equal(outputs(whole, ids(seed=9)), outputs(resumed, ids(seed=9)))
    with pytest.raises(ValueError, match="unfinished work of other settings"):
        quantise(method, model, target(4, group=8), work=Work(tmp_path))


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from _precision_models import gpt, quantise
from isoflop.levers.precision._apply import target
from isoflop.levers.precision._work import Work

keep = Work.keep

def killed(self, name, parts):
    keep(self, name, parts)
    os.kill(os.getpid(), signal.SIGKILL)

Work.keep = killed
quantise("lrq", gpt(), target(3, group=8), work=Work(Path(sys.argv[2])))
"""


def test_a_killed_process_loses_the_block_it_was_in_and_no_more(tmp_path, monkeypatch):
    """Killed after the first of two blocks; the next call learns one block, and gives what a whole run gives."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    model, learned, fit = gpt(), [], Learning.fit

    def counted(self, block, inputs, wanted):
        learned.append(block)
        return fit(self, block, inputs, wanted)

    monkeypatch.setattr(Learning, "fit", counted)
    resumed = quantise("lrq", model, target(3, group=8), work=Work(tmp_path))[0]
    assert len(learned) == 1
    whole = quantise("lrq", model, target(3, group=8))[0]
    assert torch.equal(outputs(whole, ids(seed=9)), outputs(resumed, ids(seed=9)))


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("group", [0, 4])
def test_the_gradient_by_hand_is_that_of_the_formula(rank, group):
    """Against autograd on W_q = d (clamp(round(W / (d e^S)) + z) - z) with rounding gone straight through."""
    linear = nn.Linear(12, 10).requires_grad_(False)
    one = Learned(linear, target(2, group=group).stored(12), None, rank=rank, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in one.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    pulled = torch.randn(10, 12, generator=generator)
    names = ["log_d", "row", "column", "up"] + ["down"] * bool(rank)
    got = torch.autograd.grad((one.weight() * pulled).sum(), [getattr(one, n) for n in names])
    low_rank = one.up if one.down is None else one.down @ one.up
    y = split(one.original * torch.exp(-(low_rank + one.row + one.column)), one.stored.group) / one.log_d.exp()
    codes = (y + (y.round() - y).detach() + one.zero).clamp(one.least, one.most)
    made = ((codes - one.zero) * one.log_d.exp()).reshape(10, 12)
    assert torch.allclose(one.weight(), made, atol=1e-6)
    for name, a, b in zip(
        names, got, torch.autograd.grad((made * pulled).sum(), [getattr(one, n) for n in names]), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-5), name


def test_learning_ends_when_what_was_held_out_is_no_longer_better():
    model, batches = gpt(), [ids(seed=s) for s in range(4)]
    lrq = _find.get("levers/precision", "lrq")
    wild = lrq(model, batches, target=target(3, group=8), learning=Learning(60, 3.0, 0, check=2, patience=2))[1]
    assert [layer["steps"] for layer in wild.layers] == [4, 4]  # no measure was better than the start
    assert wild.layers[0]["error"] == pytest.approx(wild.layers[0]["error_nearest"], rel=1e-3)
    calm = lrq(model, batches, target=target(3, group=8), learning=Learning(60, 3.0, 0, check=2))[1]
    assert [layer["steps"] for layer in calm.layers] == [60, 60]


def test_blocks_before_are_not_run_again_and_their_outputs_are_the_same():
    model = plain(gpt())
    blocks, batches = list(find_blocks(model)), [ids(seed=s) for s in range(2)]
    whole = calls(model, blocks[1], batches)
    done = {blocks[0]: block_outputs(model, blocks[:1], batches)[blocks[0]]}
    part(model, blocks[0]).mlp = None  # running the first block would now fail
    again = calls(model, blocks[1], batches, done=done)
    assert all(torch.equal(a[0][0], b[0][0]) for a, b in zip(whole, again, strict=True))
    with pytest.raises(TypeError):
        calls(model, blocks[1], batches)
