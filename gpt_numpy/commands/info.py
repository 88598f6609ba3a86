"""``gpt-numpy info``: the cost of a model shape on this machine, the speed of a trained model, and its limits."""

import json
import sys
import time

from ..config import GPTConfig, check_integer, preset_names
from ..errors import ConfigError
from ..host import compiler
from ..host.processors import others_busy
from ..products import PRODUCTS, WEIGHT_FORMATS
from ..wording import counted, in_bytes, in_time
from .train import add_shape_flags, given_settings, shape_of

_MEASURED_SECONDS, _LONGEST_SECONDS = 1.0, 5.0  # duration of a measured step: about, and at most
EXAMPLES = (
    ("gpt-numpy info --preset gpt2 --batch-size 8", "what a shape costs, and what this machine can do"),
    ("gpt-numpy info --norm rmsnorm --positions rotary --mlp swiglu", "GPT-2 with parts of today's models"),
    ("gpt-numpy info --model runs/notes-1", "the speed of a trained model, and its limit"),
    ("gpt-numpy info --preset mini --no-measure", "without measuring this machine"),
    ("gpt-numpy info --compile", "compile all kernels now, and say where their code is"),
    ("gpt-numpy info --preset gpt2 --json", "every figure, for a program to read"),
)


def configure(parser):
    parser.add_argument(
        "--preset", default="gpt2", metavar="NAME", help=f"the model's shape: {', '.join(preset_names())}"
    )
    parser.add_argument(
        "--model",
        metavar="FOLDER",
        help="run this model (a run's or a Hugging Face GPT-2 folder)"
        " instead, and print the speed of prefill and decode beside their limits",
    )
    parser.add_argument(
        "--format", choices=WEIGHT_FORMATS, help="with --model, how the weights are kept (default: as saved)"
    )
    parser.add_argument("--batch-size", type=int, default=4, help="sequences in a step")
    parser.add_argument("--block-size", type=int, help="tokens in a sequence (default: all the preset has)")
    parser.add_argument(
        "--products", choices=PRODUCTS, default="float32", help="of the step, as in train (default: float32)"
    )
    parser.add_argument("--recompute", action="store_true", help="run each block again in the backward, to save memory")
    parser.add_argument("--no-measure", action="store_true", help="do not measure this machine (takes a few seconds)")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile all kernels now and keep their code on disk, instead of when each is first used",
    )
    parser.add_argument("--json", action="store_true", help="print every figure as JSON: operations, bytes, seconds")
    add_shape_flags(parser.add_argument_group("the model's sizes and parts, where they are not the preset's"))


def run(args):
    if args.compile:
        _compile(args)
        return
    if args.model is not None:
        if given := given_settings(args):
            raise ConfigError("the model has its own", field=next(iter(given)), expected="--preset instead of --model")
        _generate(args)
        return
    if args.format is not None:
        raise ConfigError("only a model's weights have a format", field="--format", expected="--model as well")
    config = shape_of(args, args.preset)
    check_integer("--batch-size", args.batch_size, minimum=1)
    T = check_integer("--block-size", args.block_size or config.block_size, minimum=1)
    if T > config.block_size:
        raise ConfigError(
            "longer than the model's positions", field="--block-size", found=T, expected=f"at most {config.block_size}"
        )
    model = _model_figures(args, config, T)
    if not args.json:
        _print_model(args, config, model)
        print()
        _print_compiled_code()
    machine = None
    if not args.no_measure:
        print("\nmeasuring this machine (the first time, kernels are compiled) …", file=sys.stderr)
        machine = _machine_figures(args, config, T)
        if not args.json:
            _print_machine(args, machine, args.batch_size * T)
    if args.json:
        print(json.dumps({"preset": args.preset, **model, "compiled": _compiled_code(), "machine": machine}, indent=2))


def _generate(args):
    from ..inference.figures import measured
    from ..inference.loading import load_decoder
    from . import say_checkpoint

    say_checkpoint(args.model)
    decoder, _ = load_decoder(args.model, args.format)
    config, weights = decoder.config, decoder.weights
    if args.json:
        kept = {"format": weights.format, "weights_bytes": weights.nbytes}
        print(json.dumps({"model": args.model, **_shape(config), **kept, **measured(decoder).figures()}, indent=2))
        return
    print(f"{args.model}: {_shape_line(config)}")
    print(f"weights in {weights.format}: {weights.nbytes:,} bytes")
    print(*measured(decoder).report(), sep="\n")


def _shape(config):
    sizes = {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")}
    return {**sizes, "parts": config.differing()}


def _shape_line(config):
    return (
        f"{config.n_layer} layers, {config.n_head} heads, {config.n_embd} wide, "
        f"{config.block_size} positions, {counted(config.vocab_size, 'token')}{config.parts_in_words()}"
    )


def _model_figures(args, config, T):
    """Parameters of the shape; operations and bytes of a training step on ``args.batch_size`` × T tokens."""
    from .. import parameters
    from ..machine import cost

    step = {
        "batch_size": args.batch_size,
        "block_size": T,
        "flops": cost.step_flops(config, args.batch_size, T),
        "memory_bytes": cost.training_memory(config, args.batch_size, T, args.recompute, args.products),
    }
    counts = {"parameters": parameters.count(config), "parameters_by_part": cost.parameters_by_part(config)}
    return {**_shape(config), **counts, "step": step}


def _print_model(args, config, figures):
    step = figures["step"]
    print(f"{args.preset}: {_shape_line(config)}")
    print(f"parameters   {figures['parameters']:>17,}")
    for name, number in figures["parameters_by_part"].items():
        print(f"  {name:24}{number:>13,}")
    kind = "float32" if args.products == "float32" else f"float32, products in {args.products}"
    print(f"\na training step on {step['batch_size']} × {step['block_size']} tokens ({kind})")
    unit, prefix = (1e9, "G") if sum(step["flops"].values()) >= 1e9 else (1e6, "M")
    print(f"operations   {sum(step['flops'].values()) / unit:>13,.1f} {prefix}FLOP")
    for name, number in step["flops"].items():
        print(f"  {name:24}{number / unit:>9,.1f}")
    total = sum(step["memory_bytes"].values())
    print(f"memory       {total:>17,} bytes at the peak ({in_bytes(total)}), without Python's own")
    for name, number in step["memory_bytes"].items():
        print(f"  {name:24}{number:>13,}  {in_bytes(number):>9}")


def _compile(args):
    """Call every kernel once, on very small arrays, so that the code of all kernels is on disk."""
    from ..inference import generate
    from ..inference.panel_decoder import PanelDecoder
    from ..kernels.runtime.warm_up import compile_kernels
    from ..model import GPT
    from ..tokenizer import Tokenizer

    started = time.perf_counter()
    compile_kernels()
    print("compiling the tokenizer and the decoders …", file=sys.stderr)
    tokenizer = Tokenizer.train(["a text, a text"], 260)
    tokenizer.encode("another text")
    model = GPT(GPTConfig(260, block_size=40, n_layer=1, n_head=1, n_embd=16), seed=0)
    for format in WEIGHT_FORMATS:
        decoder = PanelDecoder.pack(model, format)
        for length in (1, 33):  # a prompt and a few tokens are read by different kernels
            list(generate(decoder, [1] * length, 2, temperature=1.0, top_k=2, seed=0))
    seconds = time.perf_counter() - started
    if args.json:
        print(json.dumps({"seconds": seconds, "compiled": _compiled_code()}, indent=2))
        return
    print(f"compiled, or loaded from disk, in {seconds:,.0f} s")
    _print_compiled_code()


def _compiled_code():
    """The folders of compiled code with their sizes, in JSON's types; None where nothing can be compiled."""
    if compiler.missing():
        return None
    from ..kernels.runtime import code_files

    return [{**held._asdict(), "folder": str(held.folder)} for held in code_files.contents()]


def _print_compiled_code():
    """Print the folder, size and state of the kernels' compiled code."""
    if reason := compiler.missing():
        print(f"compiled kernels: none: {reason}")
        return
    from ..kernels.runtime import code_files

    held, kept_in = code_files.contents(), code_files.writable_folder()
    if not held:
        where = "can be kept: see the warning" if kept_in is None else f"yet; they will be kept in {kept_in}"
        print(f"compiled kernels: none {where}")
    for folder, functions, codes, nbytes, damaged in held:
        state = f"{damaged} damaged, which will be compiled anew" if damaged else "all sound"
        print(f"compiled kernels in {folder}")
        print(f"  {counted(functions, 'function')}, {counted(codes, 'file')} of code, {nbytes:,} bytes, {state}")
    if held and kept_in not in [one.folder for one in held]:
        print(f"  read only: new code is kept in {kept_in}" if kept_in else "  read only: new code cannot be kept")


def measured_step(config, B, T, recompute, seconds, products="float32"):
    """(seconds of a training step of B sequences, sequences run for it); (None, 0) where that would take too long here.

    seconds: a lower bound of the step's time. As many sequences are run as take about a second; the result is scaled to B.
    """
    import numpy as np

    from ..model import GPT
    from ..training.optimizer import AdamW
    from ..training.settings import Settings
    from ..workspace import Workspace

    sequences = max(1, min(B, int(B * _MEASURED_SECONDS / max(seconds, 1e-9))))
    if seconds * sequences / B > _LONGEST_SECONDS:
        return None, 0
    model = GPT(config, recompute=recompute, workspace=Workspace(), products=products)
    optimizer = AdamW(model.params, Settings(), model.ops)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, config.vocab_size, (sequences, T + 1))
    passes, updates = [], []
    for step in range(4):  # the first step loads code and touches memory
        started = time.perf_counter()
        model.replace_gradients()
        model.loss_and_gradients(np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:]))
        passed = time.perf_counter()
        optimizer.update(model.params, model.grads, 1e-6, step, 1.0)
        passes.append(passed - started)
        updates.append(time.perf_counter() - passed)
    return min(passes[1:]) * B / sequences + min(updates[1:]), sequences


def _machine_figures(args, config, T):
    """The machine's facts and limits, and a step's time: by the limits alone, and measured (None: that takes too long)."""
    from .. import machine
    from ..machine.cost import expected_seconds

    rates, bandwidth = {kind: machine.peak_flops(products=kind) for kind in PRODUCTS}, machine.read_bandwidth()
    least = expected_seconds(config, args.batch_size, T, rates[args.products], bandwidth, args.recompute, args.products)
    measured, sequences = measured_step(config, args.batch_size, T, args.recompute, least, args.products)
    return {
        **machine.environment(),
        "peak_flops": rates,
        "bfloat16_products": machine.bfloat16_products(),
        "read_bandwidth": bandwidth,
        "products": args.products,
        "step_seconds_at_least": least,
        "step_seconds": measured,
        "measured_sequences": sequences,
        "others_busy": others_busy(),
        "held_back": machine.hindrances(),
    }


def _print_machine(args, figures, tokens):
    print(
        f"\nthis machine: {figures['cpu']}, {figures['threads']} of {figures['processors']} processors, "
        f"numba {figures['numba']} on its {figures['threading_layer']} layer"
    )
    for kind, how in (("float32", ""), ("bfloat16", f", {figures['bfloat16_products']}")):
        print(f"{kind + ' multiply-adds':24}{figures['peak_flops'][kind] / 1e9:>8,.0f} GFLOP/s{how}")
    print(f"reading memory          {figures['read_bandwidth'] / 1e9:>8,.1f} GB/s")
    seconds, measured = figures["step_seconds_at_least"], figures["step_seconds"]
    if measured is None:
        print(f"a step takes at least {in_time(seconds)}: at most {tokens / seconds:,.0f} tokens/s")
    else:
        sequences = figures["measured_sequences"]
        how = f"measured on {counted(sequences, 'sequence')}" + " at a time" * (sequences < args.batch_size)
        rounded = "" if args.products == "float32" else f", products in {args.products}"
        print(f"a step takes about {in_time(measured)}: {tokens / measured:,.0f} tokens/s ({how}{rounded})")
        print(f"the limits of {args.products} and of memory alone would allow {in_time(seconds)};")
        print("a small model's step has too little work to reach them")
    if (load := figures["others_busy"]) > 0.5:
        print(f"other programs keep {load:.1f} processors busy: these figures are too low")
    for hindrance in figures["held_back"]:
        print(f"held back: {hindrance}")
