"""A kernel's machine code: the vector width, the spills and the instructions of its innermost loops.

A *spill* is a vector register that is stored to the stack, or loaded from the stack, inside the loop. The loop of a tile
should have none. The kernel is compiled in a process of its own, since code from the cache cannot be inspected.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from typing import NamedTuple

WIDTHS = {"zmm": 512, "ymm": 256, "xmm": 128}
_LABEL = re.compile(r"^([\w.$]+):")
_JUMP = re.compile(r"^\s+(?:j\w+|b(?:\.\w+)?|cbn?z\s+\w+,|tbn?z\s+\w+,.*,)\s+(\.L\w+)\s*$")
_SPILL = re.compile(r"^\s+v?mov\w+\s.*(%r[sb]p\).*[xyz]mm\d+|[xyz]mm\d+.*%r[sb]p\))|^\s+(ldr|str)\s+q\d+, \[sp")
_MULTIPLY = re.compile(r"^vf(n?madd|n?msub)|^vdpbf16ps|^fml[as]|^vpdpwssd|^vpmaddwd")


class Loop(NamedTuple):
    function: str
    instructions: int
    bits: int  # of the widest registers used; 0 for none
    spills: int
    multiplies: int  # multiply-adds of vectors
    mix: dict  # instruction → how often, the most frequent first


def kernels():
    """Name → (function that runs it once, the launcher to inspect)."""
    import numpy as np

    from gpt_numpy import kernels as ops
    from gpt_numpy.kernels import gemm, layernorm, rounded
    from gpt_numpy.kernels.attention import backward, forward

    a = np.ones((64, 64), np.float32)
    q = np.ones((1, 64, 1, 32), np.float32)

    def attend(ops):
        out, cache = ops.attention_forward(q, q, q)
        ops.attention_backward(out, cache)

    return {
        "gemm": (lambda: gemm.gemm(a, a, a.copy()), gemm.multiply),
        "gemm-bfloat16": (lambda: gemm.gemm(a, a, a.copy(), products="bfloat16"), gemm.multiply),
        "attention-forward": (lambda: attend(ops), forward.forward),
        "attention-backward": (lambda: attend(ops), backward.backward),
        "attention-backward-bfloat16": (lambda: attend(rounded), backward.backward),
        "layernorm": (lambda: ops.layernorm_forward(a, a[0], a[0]), layernorm.launch_forward),
    }


NAMES = ("gemm", "gemm-bfloat16", "attention-forward", "attention-backward", "attention-backward-bfloat16", "layernorm")


def configure(parser):
    """Add the command's arguments to its parser."""
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all when none is given")


def run(args):
    """Print the loops of each kernel; returns what the command reports as JSON."""
    results = {}
    for name in args.names or NAMES:
        loops = loops_of(compiled_assembly(name))
        results[name] = [loop._asdict() for loop in loops]
        print(f"\n{name}: innermost loops, those with most multiply-adds first")
        print(f"  {'in':34}{'instructions':>13}{'bits':>6}{'multiply-adds':>15}{'spills':>8}  most frequent")
        for loop in loops[:6]:
            mix = ", ".join(f"{count} {instruction}" for instruction, count in list(loop.mix.items())[:4])
            numbers = f"{loop.instructions:>13}{loop.bits:>6}{loop.multiplies:>15}{loop.spills:>8}"
            print(f"  {loop.function[:33]:34}{numbers}  {mix}")
    return {"assembly": results}


def compiled_assembly(name):
    """The assembly text of a kernel, compiled anew."""
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ, NUMBA_CACHE_DIR=folder, GPT_NUMPY_CACHE=folder)
        command = [sys.executable, "-m", "benchmarks.assembly", name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {name} could not be compiled: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def loops_of(text):
    """The innermost loops of an assembly text, as ``Loop``, those with most multiply-adds of vectors first."""
    loops = []
    for function, lines, labels in _functions(text):
        ends = {}  # where a loop begins → where it ends
        for at, line in enumerate(lines):
            jump = _JUMP.match(line)
            if jump and labels.get(jump[1], at + 1) <= at:
                ends[labels[jump[1]]] = at
        for start, end in ends.items():
            if not any(start <= first and last <= end and first != start for first, last in ends.items()):
                loops.append(_loop(function, lines[start : end + 1]))
    return sorted(loops, key=lambda loop: -loop.multiplies)


def _functions(text):
    """Each function's name, its instructions, and its labels: name → number of the next instruction."""
    found = []
    for line in text.splitlines():
        label = _LABEL.match(line)
        if label and not label[1].startswith(".L"):
            found.append((label[1], [], {}))
        elif label and found:
            found[-1][2][label[1]] = len(found[-1][1])
        elif found and re.match(r"^\s+[a-z]", line):
            found[-1][1].append(line)
    return found


def _loop(function, lines):
    mix = Counter(line.split()[0] for line in lines)
    registers = set(re.findall(r"\b([xyz]mm)\d+", " ".join(lines)))
    neon = any(re.search(r"\bv\d+\.\d[sd]\b|\bq\d+\b", line) for line in lines)
    return Loop(
        function=_plain_name(function),
        instructions=len(lines),
        bits=max([WIDTHS[r] for r in registers], default=128 if neon else 0),
        spills=sum(1 for line in lines if _SPILL.match(line)),
        multiplies=sum(count for instruction, count in mix.items() if _MULTIPLY.match(instruction)),
        mix=dict(mix.most_common()),
    )


def _plain_name(mangled):
    """The last part of a function's name, from numba's mangled form (a length before each part)."""
    parts, at = [], mangled.find("_ZN") + 3
    while at >= 3 and (number := re.match(r"\d+", mangled[at:])):
        start = at + len(number[0])
        parts.append(mangled[start : start + int(number[0])])
        at = start + int(number[0])
    return parts[-1] if parts else mangled


def _main(name):
    once, launcher = kernels()[name]
    once()
    json.dump(next(iter(launcher.compiled.inspect_asm().values())), sys.stdout)


if __name__ == "__main__":
    _main(sys.argv[1])
