"""Modules that have moved: the old names still import them, so that older scripts go on working.

``import gpt_numpy.kernels.threads`` finds ``gpt_numpy.kernels.runtime.threads``: both names give the
same module. New code uses the new name. (``kernels.attention_forward`` and ``attention_backward`` are left out:
importing a module sets its name in the package, and two functions of the package have these names.)
"""

import importlib
import importlib.abc
import importlib.util
import sys

_IN_KERNELS = {
    "arguments": "runtime.checks",
    "attention_decode": "attention.few_queries",
    "attention_tile": "attention.score_tile",
    "bpe_bits": "bpe.bits",
    "bpe_count": "bpe.counting",
    "bpe_encode": "bpe.encoder",
    "bpe_merge": "bpe.merging",
    "bpe_texts": "bpe.texts",
    "bpe_train": "bpe.training",
    "compile": "runtime.warm_up",
    "decode": "decoding.one_token",
    "decode_attention": "decoding.cached_attention",
    "gemm_numpy": "gemm.numpy_twin",
    "gemm_tile": "gemm.tile",
    "jit": "runtime.decorators",
    "lanes": "runtime.emitting",
    "pack": "decoding.panels",
    "panel_tile": "decoding.panel_tile",
    "prefill": "decoding.prompt",
    "pretokenize": "bpe.pretokenizer",
    "simd": "runtime.vectors",
    "stages": "decoding.stages",
    "threads": "runtime.threads",
    "vector_math": "runtime.mathematics",
}

_IN_DATA = {
    "collecting": "shards.collecting",
    "corpora": "text.corpora",
    "counters": "rows.counters",
    "dataset": "shards.dataset",
    "encoding": "shards.encoding",
    "files": "text.opening",
    "fitting": "rows.fitting",
    "inspecting": "shards.inspecting",
    "manifest": "shards.manifest",
    "normalizing": "text.normalizing",
    "packing": "rows.packing",
    "prefetching": "rows.prefetching",
    "preparing": "shards.preparing",
    "progress": "shards.resuming",
    "reading": "text.reading",
    "sampling": "rows.windows",
    "segments": "rows.segments",
    "sources": "shards.sources",
    "splitting": "text.splitting",
    "token_files": "shards.token_files",
}

_IN_TOKENIZER = {
    "files": "formats.folders",
    "settings": "formats.tokenizer_config",
    "strict_json": "formats.strict_json",
    "tiktoken_file": "formats.tiktoken_file",
    "tokenizer_json": "formats.tokenizer_json",
    "vocab_files": "formats.vocab_files",
}

MOVED = {
    f"gpt_numpy.{room}.{old}": f"gpt_numpy.{room}.{new}"
    for room, moves in (("kernels", _IN_KERNELS), ("data", _IN_DATA), ("tokenizer", _IN_TOKENIZER))
    for old, new in moves.items()
}
MOVED |= {
    "gpt_numpy.accounting": "gpt_numpy.machine.cost",
    "gpt_numpy.commands.parsing": "gpt_numpy.command_line",
    "gpt_numpy.cores": "gpt_numpy.host.processors",
    "gpt_numpy.kernels.peak": "gpt_numpy.machine.limit_kernels",
    "gpt_numpy.training.throughput": "gpt_numpy.machine.memory",
    "gpt_numpy.interop.replacing": "gpt_numpy.files.durable",
    "gpt_numpy.tokenizer.saving": "gpt_numpy.files.durable",
    "gpt_numpy.training.batches": "gpt_numpy.training.plan.batches",
    "gpt_numpy.training.corpus": "gpt_numpy.training.plan.corpus",
    "gpt_numpy.training.distributed": "gpt_numpy.training.ranks.distributed",
    "gpt_numpy.training.durable": "gpt_numpy.files.durable",
    "gpt_numpy.training.initial": "gpt_numpy.training.plan.initial",
    "gpt_numpy.training.mpi": "gpt_numpy.training.ranks.mpi",
    "gpt_numpy.training.sampling": "gpt_numpy.training.watcher",
    "gpt_numpy.training.signals": "gpt_numpy.training.session",
}


class _Moved(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname, path=None, target=None):
        return importlib.util.spec_from_loader(fullname, self) if fullname in MOVED else None

    def create_module(self, spec):
        module = importlib.import_module(MOVED[spec.name])
        spec.loader_state = module.__spec__  # the import system puts ``spec`` in its place
        return module

    def exec_module(self, module):
        module.__spec__ = module.__spec__.loader_state


def follow_moves():
    """Register the finder of old names, as the last finder: the import of a new name does not reach this one."""
    sys.meta_path.append(_Moved())
