"""``gpt-numpy info``: the cost of a model shape on this machine, the speed of a trained model, and its limits."""

import sys
import time

from ..config import GPTConfig, check_integer, preset_names
from ..errors import ConfigError
from ..host import compiler
from ..host.processors import others_busy
from ..products import PRODUCTS
from ..wording import counted, in_bytes, in_time

_MEASURED_SECONDS, _LONGEST_SECONDS = 1.0, 5.0  # duration of a measured step: about, and at most
EXAMPLES = (
    ("gpt-numpy info --preset gpt2 --batch-size 8", "what a shape costs, and what this machine can do"),
    ("gpt-numpy info --model runs/notes-1", "the speed of a trained model, and its limit"),
    ("gpt-numpy info --preset mini --no-measure", "without measuring this machine"),
    ("gpt-numpy info --compile", "compile all kernels now, and say where their code is"),
)
FORMATS = ("float32", "bfloat16", "int8")


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
    parser.add_argument("--format", choices=FORMATS, help="with --model, how the weights are kept (default: as saved)")
    parser.add_argument("--batch-size", type=int, default=4, help="sequences in a step")
    parser.add_argument("--block-size", type=int, help="tokens in a sequence (default: all the preset has)")
    parser.add_argument(
        "--products", choices=PRODUCTS, default="float32", help="of the measured step, as in train (default: float32)"
    )
    parser.add_argument("--recompute", action="store_true", help="run each block again in the backward, to save memory")
    parser.add_argument("--no-measure", action="store_true", help="do not measure this machine (takes a few seconds)")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile all kernels now and keep their code on disk, instead of when each is first used",
    )


def run(args):
    if args.compile:
        _compile()
        return
    if args.model is not None:
        _generate(args)
        return
    if args.format is not None:
        raise ConfigError("only a model's weights have a format", field="--format", expected="--model as well")
    config = GPTConfig.preset(args.preset)
    check_integer("--batch-size", args.batch_size, minimum=1)
    T = check_integer("--block-size", args.block_size or config.block_size, minimum=1)
    if T > config.block_size:
        raise ConfigError(
            "longer than the model's positions", field="--block-size", found=T, expected=f"at most {config.block_size}"
        )
    _print_model(args, config, T)
    print()
    _print_compiled_code()
    if not args.no_measure:
        _print_machine(args, config, T)


def _generate(args):
    from ..inference.figures import measure
    from ..inference.loading import load_decoder
    from . import say_checkpoint

    say_checkpoint(args.model)
    decoder, _ = load_decoder(args.model, args.format)
    config, weights = decoder.config, decoder.weights
    print(
        f"{args.model}: {config.n_layer} layers, {config.n_head} heads, {config.n_embd} wide, "
        f"{config.block_size} positions, {config.vocab_size:,} tokens"
    )
    print(f"weights in {weights.format}: {weights.nbytes:,} bytes")
    print(*measure(decoder), sep="\n")


def _print_model(args, config, T):
    from .. import parameters
    from ..machine import cost

    B = args.batch_size
    print(
        f"{args.preset}: {config.n_layer} layers, {config.n_head} heads, {config.n_embd} wide, "
        f"{config.block_size} positions, {config.vocab_size:,} tokens"
    )
    print(f"parameters   {parameters.count(config):>17,}")
    for name, number in cost.parameters_by_part(config).items():
        print(f"  {name:24}{number:>13,}")
    flops = cost.step_flops(config, B, T)
    print(f"\na training step on {B} × {T} tokens (float32)")
    print(f"operations   {sum(flops.values()) / 1e9:>13,.1f} GFLOP")
    for name, number in flops.items():
        print(f"  {name:24}{number / 1e9:>9,.1f}")
    memory = cost.training_memory(config, B, T, args.recompute)
    total = sum(memory.values())
    print(f"memory       {total:>17,} bytes at the peak ({in_bytes(total)}), besides the interpreter's own")
    for name, number in memory.items():
        print(f"  {name:24}{number:>13,}  {in_bytes(number):>9}")


def _compile():
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
    for format in FORMATS:
        decoder = PanelDecoder.pack(model, format)
        for length in (1, 33):  # a prompt and a few tokens are read by different kernels
            list(generate(decoder, [1] * length, 2, temperature=1.0, top_k=2, seed=0))
    print(f"compiled, or loaded from disk, in {time.perf_counter() - started:,.0f} s")
    _print_compiled_code()


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
    from ..training import Settings
    from ..training.optimizer import AdamW
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
        model.zero_gradients()
        model.loss_and_gradients(np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:]))
        passed = time.perf_counter()
        optimizer.update(model.params, model.grads, 1e-6, step, 1.0)
        passes.append(passed - started)
        updates.append(time.perf_counter() - passed)
    return min(passes[1:]) * B / sequences + min(updates[1:]), sequences


def _print_machine(args, config, T):
    from .. import machine
    from ..machine.cost import expected_seconds

    print("\nmeasuring this machine (the first time, kernels are compiled) …", file=sys.stderr)
    facts = machine.environment()
    rates, bandwidth = {kind: machine.peak_flops(products=kind) for kind in PRODUCTS}, machine.read_bandwidth()
    print(
        f"\nthis machine: {facts['cpu']}, {facts['threads']} of {facts['processors']} processors, "
        f"numba {facts['numba']} on its {facts['threading_layer']} layer"
    )
    for kind, how in (("float32", ""), ("bfloat16", f", pairs {machine.bfloat16_products()}")):
        print(f"{kind + ' multiply-adds':24}{rates[kind] / 1e9:>8,.0f} GFLOP/s{how}")
    print(f"reading memory          {bandwidth / 1e9:>8,.1f} GB/s")
    seconds = expected_seconds(config, args.batch_size, T, rates[args.products], bandwidth, args.recompute)
    tokens = args.batch_size * T
    measured, sequences = measured_step(config, args.batch_size, T, args.recompute, seconds, args.products)
    if measured is None:
        print(f"a step takes at least {in_time(seconds)}: at most {tokens / seconds:,.0f} tokens/s")
    else:
        how = f"measured on {counted(sequences, 'sequence')}" + " at a time" * (sequences < args.batch_size)
        rounded = "" if args.products == "float32" else f", products in {args.products}"
        print(f"a step takes about {in_time(measured)}: {tokens / measured:,.0f} tokens/s ({how}{rounded})")
        print(f"the limits of {args.products} and of memory alone would allow {in_time(seconds)};")
        print("a small model's step has too little work to reach them")
    if (load := others_busy()) > 0.5:
        print(f"other programs keep {load:.1f} processors busy: all these figures are lower than they could be")
    for hindrance in machine.hindrances():
        print(f"held back: {hindrance}")
