"""Models that the quantisers are tested on, and one way to call every quantiser."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'isoflop[torch]'")
pytest.importorskip("safetensors")

from torch import nn  # noqa: E402

from isoflop import _find  # noqa: E402
from isoflop.levers.precision._reconstruct import Learning  # noqa: E402
from isoflop.levers.train._gpt import GPT  # noqa: E402
from isoflop.levers.train._shape import Shape  # noqa: E402

METHODS = _find.names("levers/precision")
SHORT = Learning(steps=3, rate=1e-3, seed=0)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def gpt(seed=0):
    """A ladder model, its gains and weights moved off their start so that nothing is 1 by accident."""
    model = GPT(Shape(width=24, depth=2, vocab=40), context=16, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1 + 0.2 * torch.randn(p.shape, generator=generator))
    return model.eval()


def ids(rows=4, time=16, seed=1, vocab=40):
    return torch.randint(0, vocab, (rows, time), generator=torch.Generator().manual_seed(seed))


def knobs(method):
    return {"learning": SHORT} if method == "lrq" else {}


def quantise(method, model, wanted, **more):
    return _find.get("levers/precision", method)(model, [ids()], target=wanted, **knobs(method), **more)


def changed(a, b):
    return float((a - b).detach().abs().max() / a.detach().abs().max())


def hugging_face(name, **more):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(
        vocab_size=40, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, **more
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def gpt2():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=40, n_embd=24, n_layer=2, n_head=4, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def classifier():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.Tanh(), nn.LayerNorm(32), nn.Linear(32, 5)
        ).eval()


MODELS = {
    "ladder": gpt,
    "llama": lambda: hugging_face("Llama", num_key_value_heads=4),
    "grouped heads": lambda: hugging_face("Llama", num_key_value_heads=2),
    "qwen2": lambda: hugging_face("Qwen2", num_key_value_heads=4),
    "gemma": lambda: hugging_face("Gemma", num_key_value_heads=4, head_dim=6),
    "neox": lambda: hugging_face("GPTNeoX"),
    "gpt2": gpt2,
}
