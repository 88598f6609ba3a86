"""A plan in words, for ``--dry-run`` and the start of a run; and as JSON, for ``plan.json`` in the run's folder."""

from __future__ import annotations

from typing import Any

from ...data import count_blocks
from ...parameters import count
from ...wording import counted
from .resolving import Plan

FORMAT = "gpt_numpy plan, version 1"


def plan_record(plan: Plan) -> dict[str, Any]:
    """The content of ``plan.json``: facts in the order in which a run uses them."""
    s, corpus, config, batches = plan.settings, plan.corpus, plan.config, plan.batches
    return {
        "format": FORMAT,
        "text": {
            "sources": plan.sources,
            "prepared": plan.circumstances.prepared,
            **plan.reading._asdict(),
            "sha256": plan.fingerprint,
        },
        "tokenizer": {
            "from": plan.tokenizer.why,
            "n_vocab": corpus.tokenizer.n_vocab,
            "eot_id": corpus.tokenizer.eot_id,
            "sha256": plan.reading.tokenizer_sha256,
        },
        "training": {
            "tokens": len(corpus.training),
            "order": s.order,
            "blocks": count_blocks(corpus.training, batches.block_size, corpus.row_length or None),
            "rows_a_step": s.batch_size,
            "steps": s.max_steps,
        },
        "validation": {
            "tokens": len(corpus.validation),
            "windows": batches.count_windows(),
            "windows_each_time": batches.count_windows(s.eval_windows or None),
            "windows_at_the_end": batches.count_windows(final_windows(s.final_tokens, batches.block_size)),
        },
        "model": {
            "parameters": count(config),
            **{name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")},
            "dropout": config.dropout,
            "parts": config.differing(),
            "weights": plan.weights,
        },
        "ranks": plan.share._asdict(),
        "without_effect": plan.unused,
    }


def final_windows(tokens: int, block_size: int) -> int | None:
    """Windows of the validation after the last step, on ``tokens`` tokens or all (0); None: all."""
    return -(-tokens // block_size) or None


def plan_lines(plan: Plan) -> list[str]:
    """The plan as lines of text, one for each subject."""
    record = plan_record(plan)
    text, model, training, validation, ranks = (
        record[name] for name in ("text", "model", "training", "validation", "ranks")
    )
    s, config, vocabulary = plan.settings, plan.config, record["tokenizer"]
    steps = ", ".join(plan.reading.normalize) or "nothing"
    read = "prepared shards" if text["prepared"] else f"{plan.reading.encoding}, normalised by {steps}"
    epochs = s.max_steps * s.batch_size * plan.batches.block_size / max(training["tokens"], 1)
    extra = model["vocab_size"] - vocabulary["n_vocab"]
    padding = f" ({extra} ids of the model have no text and are never drawn)" if extra else ""
    shared = "" if ranks["ranks"] == 1 else f" on each of {ranks['ranks']} ranks"
    return [
        f"text        {' '.join(text['sources'])}: {read}; documents {plan.reading.documents}",
        f"            SHA-256 of the tokens {plan.fingerprint[:16]}…",
        f"tokenizer   {vocabulary['from']}: {counted(vocabulary['n_vocab'], 'token')}{padding}",
        f"training    {counted(training['tokens'], 'token')}, {s.order}: {counted(training['blocks'], 'block')} of "
        f"{plan.batches.block_size}; {counted(s.max_steps, 'step')} of {s.batch_size} rows see {epochs:.2f} epochs",
        f"validation  {counted(validation['tokens'], 'token')}: {validation['windows_each_time']:,} of "
        f"{counted(validation['windows'], 'window')} every {s.eval_every} steps, "
        f"{'all' if validation['windows_at_the_end'] == validation['windows'] else validation['windows_at_the_end']} "
        "at the end",
        f"model       {counted(model['parameters'], 'parameter')}, {model['n_layer']} layers, {model['n_head']} heads, "
        f"{model['n_embd']} wide, {model['block_size']} positions{config.parts_in_words()}; weights: {plan.weights}",
        f"step        {ranks['rows']} rows, {ranks['rows_at_a_time']} at a time{shared}; "
        f"{ranks['machine_memory'] / 1e6:,.0f} MB of memory",
        f"output      a checkpoint every {s.save_every} steps and at each new best, {s.keep} kept; "
        + (f"samples every {s.sample_every} steps" if s.sample_every else "no samples"),
    ]
