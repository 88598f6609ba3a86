"""``gpt-numpy convert``: convert a model from one file format into another.

A path that ends in .bin is llm.c's checkpoint, one that ends in .gguf is llama.cpp's file, which is only written. Any other
path is a folder: a run's, or one of Hugging Face.
"""

from pathlib import Path

from ..errors import ConfigError
from ..wording import counted

EXAMPLES = (
    ("gpt-numpy convert runs/notes-1 model.bin --dtype bfloat16", "for llm.c"),
    ("gpt-numpy convert model.bin folder --tokenizer data/gpt2", "from llm.c, with a tokenizer"),
    ("gpt-numpy convert runs/notes-1 model.gguf --dtype q8_0", "for llama.cpp (needs the package gguf)"),
)


def configure(parser):
    parser.add_argument("source", metavar="FROM", help="a run's or a Hugging Face folder, or llm.c's .bin")
    parser.add_argument("target", metavar="TO", type=Path, help="a new folder, a new .bin or a new .gguf")
    parser.add_argument(
        "--dtype",
        choices=["float32", "float16", "bfloat16", "q8_0", "q4_0"],
        default="float32",
        help="type of the weights in a .bin (float32 or bfloat16) or a .gguf (any; q8_0 and q4_0 are blocks of integers)",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="FOLDER",
        help="folder of the tokenizer for a new folder (default: the source's; a .bin has none)",
    )


def run(args):
    from ..data import copy_reading
    from ..inference.loading import find_model
    from ..interop import huggingface, llmc
    from ..interop.beside import beside_of
    from . import say_checkpoint

    from_bin, form = Path(args.source).suffix == ".bin", args.target.suffix
    _check(args, form)
    folder = None if from_bin else find_model(args.source)
    if folder is not None:
        say_checkpoint(args.source)
    tokenizer = None if form == ".bin" else _tokenizer(args.tokenizer or folder)
    config, params = llmc.load(args.source) if from_bin else huggingface.load(folder)
    wider = []
    if form == ".bin":
        llmc.save(args.target, config, params, args.dtype)
    elif form == ".gguf":
        wider = _save_gguf(args, config, params, tokenizer, folder)
    else:
        same = folder if args.tokenizer is None else None  # another tokenizer may have other ids
        end = huggingface.end_of_text_field(folder, tokenizer)
        huggingface.save(args.target, config, params, end, beside_of(same, tokenizer))
        if tokenizer is not None:
            tokenizer.save(args.target)
        if folder is not None and args.tokenizer is None:
            copy_reading(folder, args.target)
    print(
        f"{config.n_layer} layers, {config.n_embd} wide, {counted(len(params.flat), 'parameter')}: written to {args.target}"
    )
    if wider:
        print(f"float16 instead of {args.dtype}, whose blocks do not fill a row: {counted(len(wider), 'tensor')}")


def _check(args, form):
    """Refuse what no conversion can do, before anything is read."""
    if args.target.exists():
        raise ConfigError("there is something already", field="TO", found=str(args.target), expected="a new name")
    if Path(args.source).suffix == ".gguf":
        raise ConfigError(
            "a .gguf is only written here", field="FROM", found=args.source, expected="a folder or a .bin"
        )
    if args.dtype != "float32" and form not in (".bin", ".gguf"):
        raise ConfigError(
            "a folder holds float32", field="--dtype", found=args.dtype, expected="a TO that ends in .bin or .gguf"
        )
    if form == ".gguf":
        from ..interop import gguf_files

        gguf_files.package()


def _save_gguf(args, config, params, tokenizer, folder):
    """Write llama.cpp's file; the names of the tensors that are in a wider format than asked for."""
    from ..interop import gguf_files, huggingface

    if tokenizer is None:
        raise ConfigError("a .gguf holds a tokenizer", expected="--tokenizer FOLDER")
    ends = () if folder is None else huggingface.end_of_text_ids(folder)
    return gguf_files.save(args.target, config, params, tokenizer, args.dtype, ends).wider


def _tokenizer(folder):
    from ..tokenizer import load_tokenizer

    return None if folder is None else load_tokenizer(folder)
