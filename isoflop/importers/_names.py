"""Names under which trackers' users log what isoflop's columns hold. Only names that mean one thing are here.

Names are compared in lower case with every other character as one underscore, so `eval/loss` is `eval_loss`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

HELD_OUT = (
    "eval_loss", "val_loss", "valid_loss", "validation_loss", "heldout_loss", "held_out_loss", "dev_loss", "test_loss",
    "loss_val", "loss_eval", "loss_valid", "loss_validation", "loss_test", "val_loss_epoch", "eval_lm_loss",
    "val_lm_loss", "validation_lm_loss", "lm_loss_validation", "val_ce_loss", "eval_cross_entropy",
    "val_cross_entropy", "eval_ce_loss",
)  # fmt: skip
TRAINING = (
    "train_loss", "training_loss", "loss_train", "loss_training", "train_lm_loss", "lm_loss", "train_ce_loss",
    "train_cross_entropy", "train_loss_step", "train_loss_epoch", "loss",
)  # fmt: skip
STEPS = ("train_global_step", "trainer_global_step", "global_step", "global_steps", "optimizer_step", "train_step",
         "iteration", "iter", "step")  # fmt: skip

# What a history (or the final values) may hold.
MEASURED: dict[str, tuple[str, ...]] = {
    "tokens": (
        "tokens", "tokens_seen", "train_tokens", "total_tokens", "n_tokens", "num_tokens", "train_tokens_seen",
        "consumed_tokens", "consumed_train_tokens", "num_input_tokens_seen", "train_num_input_tokens_seen",
        "tokens_trained", "total_tokens_seen", "throughput_total_tokens", "perf_total_tokens", "train_total_tokens",
        "processed_tokens", "tokens_processed",
    ),
    "flops": ("flops", "total_flops", "train_flops", "training_flops", "total_flos", "train_total_flos",
              "total_training_flops"),
    "lr": ("lr", "learning_rate", "train_learning_rate", "train_lr", "lr_adamw", "lr_adam", "lr_sgd",
           "optimizer_lr"),
    "accuracy": ("eval_accuracy", "val_accuracy", "val_acc", "eval_acc", "test_accuracy", "validation_accuracy",
                 "accuracy_val", "accuracy_eval"),
    "epochs": ("epoch", "epochs", "train_epoch"),
    "seconds": ("runtime", "train_runtime", "train_train_runtime", "wall_time", "elapsed_seconds", "train_seconds"),
}  # fmt: skip

# What settings (or the final values) may hold.
SETTINGS: dict[str, tuple[str, ...]] = {
    "params": ("params", "n_params", "num_params", "n_parameters", "num_parameters", "total_params",
               "model_num_parameters", "parameter_count", "param_count", "params_total", "model_params"),
    "params_nonembed": ("params_nonembed", "non_embedding_params", "num_non_embedding_params", "params_no_embed",
                        "n_params_nonembed", "non_embedding_parameters"),
    "params_active": ("params_active", "active_params", "n_active_params", "num_active_params",
                      "active_parameters"),
    "unique": ("unique_tokens", "unique"),
    "batch_tokens": ("batch_tokens", "tokens_per_step", "tokens_per_batch", "tokens_per_iter", "batch_size_tokens",
                     "total_batch_size_tokens", "global_batch_size_tokens", "global_batch_tokens"),
    "context": ("context", "context_length", "context_len", "seq_len", "seq_length", "sequence_length", "sequence_len",
                "block_size", "max_seq_len", "max_seq_length", "max_sequence_length"),
    "seed": ("seed", "random_seed"),
    "family": ("family", "model_family"),
    "model": ("model", "model_name", "model_name_or_path"),
    "data": ("data", "dataset", "dataset_name"),
    "width": ("width", "hidden_size", "d_model", "n_embd", "dim", "model_dim"),
    "depth": ("depth", "n_layer", "n_layers", "num_layers", "num_hidden_layers"),
    "heads": ("heads", "n_head", "n_heads", "num_heads", "num_attention_heads"),
    "vocab": ("vocab", "vocab_size"),
    "experts": ("experts", "num_experts", "n_experts", "num_local_experts", "n_routed_experts"),
}  # fmt: skip
TEXTS = frozenset({"seed", "family", "model", "data"})

# Settings from which tokens a step follow: sequences on all devices, or on each with how many there are.
GLOBAL_BATCH = ("global_batch_size", "total_train_batch_size", "effective_batch_size")
LOCAL_BATCH = ("per_device_train_batch_size", "micro_batch_size", "micro_batch_size_per_gpu")
PLAIN_BATCH = ("batch_size", "train_batch_size")
ACCUMULATION = ("gradient_accumulation_steps", "accumulate_grad_batches", "grad_accum_steps")
DEVICES = ("world_size", "num_devices", "n_gpus", "num_gpus", "num_processes", "data_parallel_size")

_OTHER = re.compile(r"[^a-z0-9]+")


def folded(name: str) -> str:
    """A name as it is compared."""
    return _OTHER.sub("_", name.casefold()).strip("_")


def pick(wanted: Iterable[str], present: Iterable[str], *, parts: bool = False) -> str | None:
    """The first of `wanted` that is present, as it is spelt there; with `parts` the last part of a dotted name will do.

    A name's last part counts only where no other name ends the same.
    """
    names = list(present)
    whole = {folded(n): n for n in reversed(names)}
    ends: dict[str, list[str]] = {}
    for name in names if parts else ():
        if "." in name or "/" in name:
            ends.setdefault(folded(re.split(r"[./]", name)[-1]), []).append(name)
    for want in wanted:
        if want in whole:
            return whole[want]
        if len(ends.get(want, ())) == 1:
            return ends[want][0]
    return None
