"""Every file of a filled folder of compiled code, damaged in many ways, in processes that compute.

    python damaged_cache.py [EVERY]      EVERY: damage only each EVERY-th file, by default each

``NUMBA_CACHE_DIR`` names an empty folder, which is filled first. Then, for each file, a forked process computes the
same numbers while the file is damaged: first as any new process does, which has loaded no kernel before; then once more for
each other damage, after the kernel of the file was loaded anew. From the second damage on, the result of numba's
compiler is taken from memory; reading, checking, warning, replacing and running are repeated.
Prints JSON: how many files, how many damages, and what failed.
"""

import hashlib
import importlib
import json
import os
import pkgutil
import random
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import numpy as np
from numba.core.dispatcher import Dispatcher

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from gpt_numpy import GPT, GPTConfig, Tokenizer, kernels  # noqa: E402
from gpt_numpy.inference.generate import generate  # noqa: E402
from gpt_numpy.inference.panel_decoder import PanelDecoder  # noqa: E402
from gpt_numpy.kernels.runtime import code_files  # noqa: E402
from gpt_numpy.kernels.runtime.warm_up import compile_kernels  # noqa: E402

CUTS, FLIPS = 20, 50


def mutants(content, rng, cuts=CUTS, flips=FLIPS):
    """``content`` emptied, cut at ``cuts`` places, and with one bit flipped in each of ``flips`` bytes."""
    yield b""
    for cut in sorted(rng.sample(range(1, len(content)), min(cuts, len(content) - 1))):
        yield content[:cut]
    for place in rng.sample(range(len(content)), min(flips, len(content))):
        yield content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def answers():
    """The hash of what the kernels compute: a tokenizer, a training step, text in each number format."""
    compile_kernels(show_progress=False, products="bfloat16")
    model = GPT(GPTConfig(n_layer=2, n_head=3, n_embd=12, vocab_size=31, block_size=40, dropout=0.1), seed=1)
    tokens = np.random.default_rng(0).integers(0, 31, (2, 9))
    digest = hashlib.sha256(repr(float(model.loss_and_gradients(tokens, tokens))).encode())
    digest.update(model.grads.flat)
    digest.update(model.forward(tokens[:, :4]))
    moments = np.zeros((2, model.params.flat.size), np.float32)
    ends, decays = np.array([0, model.params.flat.size]), np.array([0.1])
    model.ops.adamw_update(model.params.flat, model.grads.flat, *moments, ends, decays, 1e-3, 0.9, 0.95, 1e-8, 1)
    digest.update(model.params.flat)
    for weights in ("float32", "bfloat16", "int8"):
        for length in (1, 33):  # a prompt and a few tokens are read by different kernels
            digest.update(generate(PanelDecoder.pack(model, weights), [1] * length, 4, temperature=0))
    text = "the cat sat on the mat; the rat sat on the cat\n" * 20
    tokenizer = Tokenizer.train([text], 265)
    digest.update(repr(tokenizer.encode(text)).encode())
    return digest.hexdigest()


def dispatchers():
    """Name in the folder of compiled code → numba's dispatcher."""
    found = {}
    for module in pkgutil.walk_packages(kernels.__path__, kernels.__name__ + "."):
        for value in vars(importlib.import_module(module.name)).values():
            dispatcher = getattr(value, "compiled", value)
            if isinstance(dispatcher, Dispatcher) and hasattr(dispatcher._cache, "_files"):
                found[dispatcher._cache._files.name] = dispatcher
    return found


def in_child(function):
    """What ``function`` returns in a forked process, with the process's exit code appended to the failures."""
    with tempfile.TemporaryFile() as file:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                file.write(json.dumps(function()).encode())
                file.flush()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        file.seek(0)
        content = file.read()
        return json.loads(content) if status == 0 and content else {"failures": [f"the process ended with {status}"]}


def with_warnings(function):
    """(what ``function`` returns, its warnings)."""
    code_files._warned.clear()
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        return function(), [str(one.message) for one in given]


def remember(dispatcher):
    """Let the dispatcher's compiler compile once for each combination of types."""
    compiler, known = dispatcher._compiler, {}
    compile_anew = compiler.compile

    def compile(args, return_type):
        if args not in known:
            known[args] = compile_anew(args, return_type)
        known[args].metadata.pop("timers", None)  # the dispatcher enters how long compiling took
        return known[args]

    compiler.compile = compile


def damage(path, dispatcher, expected):
    """Compute the answers with each mutant of ``path``; returns how many mutants there were, and the failures."""
    rng, failures, count = random.Random(path.name), [], 0
    remember(dispatcher)
    for count, mutant in enumerate(mutants(path.read_bytes(), rng), 1):
        path.write_bytes(mutant)

        def again(first=count == 1):
            if not first:
                dispatcher.recompile()
            return answers()

        found, given = with_warnings(again)
        if found != expected:
            failures.append(f"{path.name}, damage {count}: other numbers")
        if len(given) != 1 or path.name not in given[0]:
            failures.append(f"{path.name}, damage {count}: warnings {given}")
        if not path.is_file() or path.read_bytes() == mutant:
            failures.append(f"{path.name}, damage {count}: not replaced")
    return {"damages": count, "failures": failures}


def main(every=1):
    expected = in_child(answers)
    assert in_child(lambda: with_warnings(answers)) == [expected, []], "the numbers differ between two processes"
    (folder,) = code_files.folders()
    paths, kernel_of = sorted(folder.iterdir()), dispatchers()
    report = {"files": len(paths), "damaged": 0, "damages": 0, "failures": []}
    for path in paths[::every]:
        sound = {
            p: p.read_bytes() for p in paths if p.name.startswith(path.name.partition(".nb")[0].rpartition(".")[0])
        }
        name = path.stem if path.suffix == ".nbi" else path.stem.rpartition(".")[0]
        found = in_child(lambda: damage(path, kernel_of[name], expected))
        report["damaged"] += 1
        report["damages"] += found.get("damages", 0)
        report["failures"] += found["failures"]
        for one, content in sound.items():
            one.write_bytes(content)
        print(f"{path.name}: {found}", file=sys.stderr, flush=True)
    print(json.dumps(report))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
