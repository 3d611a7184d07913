"""Model folders: Hugging Face's and isoflop's own, read from disk alone; quantised models written and read again.

Only safetensors are read: no pickled weights, no code from the folder, nothing from the network.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isoflop._lever import _replace
from isoflop.levers.precision._linear import QuantLinear
from isoflop.levers.precision._plain import plain, put
from isoflop.levers.precision._report import Report


@dataclass(frozen=True)
class Read:
    """How text becomes the ids of a model: `folder` has the tokenizer; bytes where there is none. context: tokens."""

    folder: Path
    vocab: int
    context: int
    tokenizer: bool

    def ids(self, text: Path) -> Tensor:
        """Token ids of a text file. Raises ValueError where the model cannot read it."""
        try:
            raw = text.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read the text {text}: {error.strerror}") from error
        if not self.tokenizer:
            ids = torch.frombuffer(bytearray(raw), dtype=torch.uint8).long()
        else:
            made = _transformers().AutoTokenizer.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=False
            )
            ids = torch.tensor(made(raw.decode(errors="replace"), verbose=False)["input_ids"])
        if len(ids) and int(ids.max()) >= self.vocab:
            raise ValueError(f"{text} has token {int(ids.max())}, and the model knows {self.vocab}; give another text")
        return ids


def _transformers() -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ImportError("a Hugging Face folder needs transformers: pip install transformers") from error
    return transformers


def load_model(folder: str | Path) -> tuple[nn.Module, Read]:
    """A trained model in float32 and how it reads text: a Hugging Face causal LM, or one that isoflop exported.

    Raises ValueError where the folder holds neither, or its weights are pickled.
    """
    place, config = _config(folder)
    if config.get("architecture") == "isoflop-gpt":
        return _own(place)
    if not list(place.glob("*.safetensors")):
        pickled = ", ".join(p.name for p in [*place.glob("*.bin"), *place.glob("*.pt"), *place.glob("*.pth")])
        found = f"only {pickled}, which is not read: it can run code" if pickled else "no weights"
        raise ValueError(f"{place} has no .safetensors file ({found}); save the model with save_pretrained")
    try:
        model = _transformers().AutoModelForCausalLM.from_pretrained(
            place, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"{place} cannot be loaded as a causal language model: {error}") from error
    limit = getattr(model.config, "max_position_embeddings", None) or 2048
    tokenizer = any((place / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json"))
    return model.eval(), Read(place, model.config.vocab_size, min(int(limit), 512), tokenizer)


def _config(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    from isoflop.levers.think._model_files import find_model

    place = find_model(folder)
    path = place / "config.json"
    if not path.is_file():
        raise ValueError(f"{place} holds no config.json; give the folder of a Hugging Face or isoflop model")
    return place, json.loads(path.read_text(encoding="utf-8"))


def _own(place: Path) -> tuple[nn.Module, Read]:
    from isoflop.levers.think._model_files import load_model as load
    from isoflop.levers.train._gpt import GPT
    from isoflop.levers.train._shape import Shape

    weights, config = load(place)
    shape = Shape(**{key: config[key] for key in ("width", "depth", "vocab", "heads", "tied")})
    model = GPT(shape, context=config["context"], seed=0)
    missing, unknown = model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in weights.items()}, strict=False)
    if unknown or [key for key in missing if key != "unembedding"]:
        raise ValueError(f"{place}/model.safetensors does not hold the tensors of its config.json")
    return model.eval(), Read(place, shape.vocab, config["context"], tokenizer=False)


def windows(read: Read, text: Path, *, context: int) -> Tensor:
    """The text as windows (n, context + 1) that do not overlap. Raises ValueError where it is shorter than two."""
    ids = read.ids(text)
    count = len(ids) // (context + 1)
    if count < 2:
        raise ValueError(f"{text} has {len(ids)} tokens, fewer than two windows of {context + 1}; give a longer text")
    return ids[: count * (context + 1)].view(count, context + 1)


def parted(all_windows: Tensor, *, calibration: int, heldout: int, batch: int = 4) -> tuple[list[Tensor], Tensor]:
    """The first windows to calibrate on, in batches of inputs, and the last, others, to measure on."""
    count = len(all_windows)
    first = min(calibration, count // 2)
    held = all_windows[max(first, count - heldout) :]
    return [part[:, :-1] for part in all_windows[:first].split(batch)], held


def save_quantised(folder: str | Path, model: nn.Module, report: Report, *, source: Path) -> None:
    """Write model.safetensors (rounded weights as numbers, with scales), quantization.json, report.json, and the
    source's config and tokenizer files. `load_quantised` reads the folder; transformers does where `loads_as_is` is
    true.
    """
    from safetensors.torch import save_file

    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    layers = {name: m.facts() for name, m in model.named_modules() if isinstance(m, QuantLinear)}
    as_is = not any(f["acts"] or f["rotated"] or set(f["extras"]) - {"scale", "zero"} for f in layers.values())
    config: Any = getattr(model, "config", None)
    as_is = as_is and config is not None and config.model_type != "gpt2"
    state, seen = {}, set()
    for key, value in model.state_dict().items():
        if value.data_ptr() not in seen or value.numel() == 0:
            state[key] = value.detach().contiguous().clone()
            seen.add(value.data_ptr())
    for name in source.iterdir():
        if name.suffix in (".json", ".txt", ".model") and name.name not in (
            "model.safetensors.index.json",
            "problems.jsonl",
        ):
            _replace(out / name.name, name.read_bytes())
    facts = {"arithmetic": "simulated", "method": report.method, "loads_as_is": as_is, "layers": layers}
    _replace(out / "quantization.json", (json.dumps(facts, indent=1) + "\n").encode())
    _replace(out / "report.json", (json.dumps(report.plain(), indent=1) + "\n").encode())
    temporary = out / ".model.tmp"
    save_file(state, temporary, metadata={"format": "pt"})
    temporary.replace(out / "model.safetensors")


def load_quantised(folder: str | Path) -> tuple[nn.Module, Read]:
    """A model that `save_quantised` wrote, in simulated arithmetic."""
    from safetensors.torch import load_file

    place, config = _config(folder)
    path = place / "quantization.json"
    if not path.is_file():
        raise ValueError(f"{place} holds no quantization.json; it was not written by isoflop quantize")
    facts = json.loads(path.read_text(encoding="utf-8"))
    model, read = _empty(place, config)
    for name, layer in facts["layers"].items():
        put(model, name, QuantLinear.empty(layer))
    tensors, head = load_file(place / "model.safetensors"), getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None and sum(k.endswith(("embed_tokens.weight", "lm_head.weight")) for k in tensors) == 2:
        head.weight = nn.Parameter(head.weight.detach().clone())  # a rotated model's is no longer the embedding
    missing, unknown = model.load_state_dict(tensors, strict=False)
    if unknown or [key for key in missing if not key.endswith(("lm_head.weight", "embed_out.weight"))]:
        raise ValueError(f"{place}/model.safetensors does not hold the tensors of quantization.json")
    return model.requires_grad_(False).eval(), read


def _empty(place: Path, config: dict[str, Any]) -> tuple[nn.Module, Read]:
    """The model of a config with fresh weights, as the quantisers see it."""
    if config.get("architecture") == "isoflop-gpt":
        from isoflop.levers.train._gpt import GPT
        from isoflop.levers.train._shape import Shape

        shape = Shape(**{key: config[key] for key in ("width", "depth", "vocab", "heads", "tied")})
        made = plain(GPT(shape, context=config["context"], seed=0))
        return made, Read(place, shape.vocab, config["context"], tokenizer=False)
    kit = _transformers()
    with torch.random.fork_rng(devices=[]):
        model = kit.AutoModelForCausalLM.from_config(
            kit.AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False),
            trust_remote_code=False,
        )
    limit = getattr(model.config, "max_position_embeddings", None) or 2048
    return plain(model), Read(place, model.config.vocab_size, min(int(limit), 512), (place / "tokenizer.json").exists())
