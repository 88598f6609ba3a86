"""``gpt-numpy convert``: convert a model from one file format into another.

A path that ends in .bin is llm.c's checkpoint. Any other path is a folder: a run's, or a Hugging Face GPT-2's.
"""

from pathlib import Path

from ..errors import ConfigError
from ..wording import counted

EXAMPLES = (
    ("gpt-numpy convert runs/notes-1 model.bin --dtype bfloat16", "for llm.c"),
    ("gpt-numpy convert model.bin folder --tokenizer data/gpt2", "from llm.c, with a tokenizer"),
)


def configure(parser):
    parser.add_argument("source", metavar="FROM", help="a run's or a Hugging Face GPT-2 folder, or llm.c's .bin")
    parser.add_argument("target", metavar="TO", type=Path, help="a new folder, or a new .bin")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="type of the numbers in a .bin"
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
    from . import say_checkpoint

    from_bin, to_bin = Path(args.source).suffix == ".bin", args.target.suffix == ".bin"
    if args.target.exists():
        raise ConfigError("there is something already", field="TO", found=str(args.target), expected="a new name")
    if args.dtype != "float32" and not to_bin:
        raise ConfigError(
            "a folder holds float32", field="--dtype", found=args.dtype, expected="a TO that ends in .bin"
        )
    folder = None if from_bin else find_model(args.source)
    if folder is not None:
        say_checkpoint(args.source)
    tokenizer = None if to_bin else _tokenizer(args.tokenizer or folder)
    config, params = llmc.load(args.source) if from_bin else huggingface.load(folder)
    if to_bin:
        llmc.save(args.target, config, params, args.dtype)
    else:
        huggingface.save(args.target, config, params, huggingface.end_of_text_field(folder, tokenizer))
        if tokenizer is not None:
            tokenizer.save(args.target)
        if folder is not None and args.tokenizer is None:
            copy_reading(folder, args.target)
    print(
        f"{config.n_layer} layers, {config.n_embd} wide, {counted(len(params.flat), 'parameter')}: written to {args.target}"
    )


def _tokenizer(folder):
    from ..tokenizer import load_tokenizer

    return None if folder is None else load_tokenizer(folder)
