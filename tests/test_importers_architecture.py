"""Parameters and FLOPs counted from a config are exactly those of the model that transformers builds from it."""

import json
import re
import subprocess
import sys

import pytest

from isoflop import RunsError
from isoflop.importers._architecture import count_flops, count_params, known_types

LLAMA = {
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "tie_word_embeddings": False,
}  # fmt: skip
PUBLISHED = {  # total, without embeddings and head, active: from the models' cards and papers
    "gpt2": ({"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12,
              "n_positions": 1024}, 124_439_808, None, None),
    "pythia-70m": ({"model_type": "gpt_neox", "vocab_size": 50304, "hidden_size": 512, "num_hidden_layers": 6,
                    "num_attention_heads": 8, "intermediate_size": 2048}, 70_426_624, 18_915_328, None),
    "llama-2-7b": (LLAMA, 6_738_415_616, None, None),
    "mixtral-8x7b": ({"model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
                      "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
                      "num_local_experts": 8, "num_experts_per_tok": 2}, 46_702_792_704, None, 12_879_925_248),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    config, total, nonembed, active = PUBLISHED[name]
    counts = count_params(config)
    assert counts.total == total
    assert counts.active == (active or total)
    if nonembed:
        assert counts.nonembed == nonembed
    assert counts.total == counts.nonembed + counts.embedding + counts.positions + counts.head


SMALL = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
GROUPED, HEADS = SMALL | {"num_key_value_heads": 2}, {"head_dim": 16}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
GPT2 = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
OPT = {k: v for k, v in SMALL.items() if k != "intermediate_size"} | {"ffn_dim": 48, "max_position_embeddings": 64}
FALCON = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LATENT = SMALL | {
    "q_lora_rank": 10, "kv_lora_rank": 12, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6,
    "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 2, "moe_intermediate_size": 20,
    "first_k_dense_replace": 1, "num_key_value_heads": 4, "head_dim": 4, "n_group": 2, "topk_group": 1,
}  # fmt: skip
CASES = [
    ("gpt2", GPT2), ("gpt2", GPT2 | {"n_inner": 40, "tie_word_embeddings": False}),
    ("gpt_neox", SMALL), ("gpt_neox", SMALL | {"attention_bias": False}),
    ("opt", OPT | {"word_embed_proj_dim": 32}),
    ("opt", OPT | {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    ("llama", SMALL), ("llama", GROUPED | HEADS | {"tie_word_embeddings": True, "attention_bias": True}),
    ("llama", GROUPED | {"mlp_bias": True}), ("granite", GROUPED), ("mistral", GROUPED), ("mistral", GROUPED | HEADS),
    ("mixtral", GROUPED | {"num_local_experts": 6, "num_experts_per_tok": 2}),
    ("qwen2", GROUPED | {"tie_word_embeddings": True}), ("qwen3", GROUPED | HEADS | {"attention_bias": True}),
    ("qwen2_moe", GROUPED | EXPERTS | {"shared_expert_intermediate_size": 28}),
    ("qwen2_moe", GROUPED | EXPERTS | {"decoder_sparse_step": 2, "mlp_only_layers": [1], "qkv_bias": False,
                                       "shared_expert_intermediate_size": 28}),
    ("qwen3_moe", GROUPED | HEADS | EXPERTS), ("gemma", GROUPED | HEADS), ("gemma2", GROUPED | HEADS),
    ("gemma3_text", GROUPED | HEADS | {"sliding_window": 8}), ("olmo", GROUPED), ("olmo2", GROUPED),
    ("olmoe", GROUPED | {"num_experts": 6, "num_experts_per_tok": 2}), ("phi", SMALL),
    ("phi", GROUPED | {"qk_layernorm": True}),
    ("phi3", GROUPED | {"max_position_embeddings": 64, "original_max_position_embeddings": 64}), ("falcon", FALCON),
    ("falcon", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    ("falcon", FALCON | {"multi_query": False, "parallel_attn": False, "bias": True, "ffn_hidden_size": 40}),
    ("deepseek_v2", LATENT | {"q_lora_rank": None, "topk_method": "greedy"}),
    ("deepseek_v3", LATENT | {"attention_bias": True}),
]  # fmt: skip

BUILD = """
import json, sys, torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM
torch.set_num_threads(1)
ids = torch.arange(16)[None] % 90
out = []
for kind, settings in json.load(sys.stdin):
    config = AutoConfig.for_model(kind, pad_token_id=0, bos_token_id=1, eos_token_id=2, **settings)
    config.use_cache = False
    sparse = {"experts_implementation": "eager"} if {"num_experts_per_tok"} & set(settings) else {}
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", **sparse)
    with FlopCounterMode(display=False) as forward:
        model(ids)
    with FlopCounterMode(display=False) as training:
        model(ids).logits.sum().backward()
    out.append({"config": json.loads(config.to_json_string()), "params": sum(p.numel() for p in model.parameters()),
                "forward": forward.get_total_flops(), "training": training.get_total_flops()})
print("RESULT" + json.dumps(out))
"""


@pytest.fixture(scope="module")
def built():
    pytest.importorskip("torch")
    if subprocess.run([sys.executable, "-c", "import transformers"], capture_output=True).returncode:
        pytest.skip("transformers is not installed")
    done = subprocess.run(
        [sys.executable, "-c", BUILD], input=json.dumps(CASES), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.rsplit("RESULT", 1)[1])


def test_exact_against_transformers_and_the_flop_counter(built):
    assert {kind for kind, _ in CASES} == set(known_types())
    for (kind, settings), model in zip(CASES, built, strict=True):
        flops = count_flops(model["config"], context=16, attention="full")
        found = count_params(model["config"]).total, flops.forward * 16, flops.training * 16
        assert found == (model["params"], model["forward"], model["training"]), (kind, settings)


def test_causal_attention_counts_the_keys_that_may_be_seen():
    full, causal, none = (count_flops(LLAMA, context=8, attention=a) for a in ("full", "causal", "none"))
    assert full.matmul == causal.matmul == none.forward
    assert causal.scores * 8 == full.scores * (8 + 1) / 2
    windowed = LLAMA | {"model_type": "mistral", "num_key_value_heads": 32, "sliding_window": 3}
    seen = sum(min(i + 1, 3) for i in range(8))
    assert count_flops(windowed, context=8).scores * 8 == pytest.approx(full.scores / 8 * seen)
    assert count_flops(LLAMA, context=8, attention="none").training == pytest.approx(
        6 * (count_params(LLAMA).total - 32000 * 4096), rel=1e-4
    )  # 6 N a token, less norms and the look-up


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "mamba"}, "no count for model type 'mamba'; there are deepseek_v2"),
        ({"model_type": "llava", "text_config": {}}, "give its text_config alone"),
        ({}, "has no model_type"),
        ({k: v for k, v in LLAMA.items() if k != "hidden_size"}, "a llama config needs hidden_size or n_embd"),
        (LLAMA | {"hidden_size": -1}, "hidden_size is -1; it must be a whole number above 0"),
        (LLAMA | {"hidden_size": 4.5}, "hidden_size is 4.5"),
        (LLAMA | {"vocab_size": 10**30}, "must be a whole number above 0"),
        (LLAMA | {"num_hidden_layers": 10**8}, "no model has so many"),
        (LLAMA | {"num_attention_heads": 3}, "is not divisible by 3 heads"),
        (LLAMA | {"tie_word_embeddings": "yes"}, "must be true or false"),
        (LLAMA | {"model_type": "mistral"}, "a mistral config needs num_key_value_heads"),
        (PUBLISHED["mixtral-8x7b"][0] | {"num_experts_per_tok": 9}, "routed to 9 experts, of 8"),
        (PUBLISHED["mixtral-8x7b"][0] | {"mlp_only_layers": "x"}, "it must be a list"),
    ],
)
def test_a_config_that_cannot_be_counted_says_why(config, said):
    with pytest.raises(RunsError, match=re.escape(said)):
        count_params(config)


def test_settings_of_the_count_are_checked():
    with pytest.raises(ValueError, match="there are causal, full, none"):
        count_flops(LLAMA, context=8, attention="half")
    with pytest.raises(ValueError, match="a context of one token or more"):
        count_flops(LLAMA, context=0)


def test_the_command_counts_a_config(run, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    found = run.json("import", tmp_path / "config.json", "--context", 4096)
    assert found["params"]["total"] == 6_738_415_616
    assert found["flops"]["training"] == 3 * found["flops"]["forward"]
    assert "6,738,415,616" in run("import", tmp_path / "config.json").stdout
    (tmp_path / "config.json").write_text("{")
    assert "config.json line 1 is not JSON" in run("import", tmp_path / "config.json", code=2).stderr
