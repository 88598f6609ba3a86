"""The rules of the house that a program can check: sizes, names, arguments, and which way imports run.

Each rule has its list of exceptions beside it. An exception that is no longer needed fails too.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gpt_numpy"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py"))
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}

MOST_FILES = 16  # beside each other in a folder, __init__ left out
MOST_ARGUMENTS = 10  # positional
MOST_LINES = 420

# A twin bears the name of what it is the twin of; a command bears the name of what it runs.
TWINS = ("gpt_numpy/layers/", "gpt_numpy/kernels/", "gpt_numpy/commands/")

# The update's arrays and the paper's hyperparameters, each by its name.
MANY_ARGUMENTS = {f"gpt_numpy/{place}:adamw_update" for place in ("layers/adamw.py", "kernels/adamw.py", "ops.py")}

# Floors of the house, from the bottom up: a module imports from its own floor or from below.
FLOORS = [
    {"_version", "moved", "errors", "lazy", "wording"},
    {"host", "locating", "randomness", "workspace", "ops", "files", "products", "unicode"},
    {"config", "parameters", "arguments", "architecture", "layers", "kernels", "tokenizer", "data"},
    {"machine", "interop", "model"},
    {"inference", "study", "evaluating"},
    {"training"},
    {"sweeping", "command_line"},
    {"commands", "__main__", "__init__"},
]


def imports(tree, name):
    """(module, imported name) pairs of a module of the package, absolute."""
    package = name.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            for alias in node.names:
                yield module, alias.name


def test_no_folder_is_crowded():
    for folder in {path.parent for path in SOURCES}:
        files = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= MOST_FILES, f"{folder.relative_to(ROOT)} has {len(files)} files"


def test_no_file_is_long():
    long = {name: len(Path(ROOT / name).read_text(encoding="utf-8").splitlines()) for name in TREES}
    assert {name: lines for name, lines in long.items() if lines > MOST_LINES} == {}


def test_no_name_stands_for_two_files():
    places = defaultdict(list)
    for name in TREES:
        path = Path(name)
        if path.name not in ("__init__.py", "__main__.py") and not name.startswith(TWINS):
            places[path.name].append(name)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_files_of_one_name_in_layers_and_kernels_are_twins():
    kernels = {path.name for path in (PACKAGE / "kernels").glob("*.py")} | {
        path.name + ".py" for path in (PACKAGE / "kernels").iterdir() if path.is_dir()
    }
    layers = {path.name for path in (PACKAGE / "layers").glob("*.py")}
    without_twin = {"gemm.py", "decoding.py", "bpe.py", "runtime.py", "__pycache__.py"}
    assert kernels - layers <= without_twin, "a file directly in kernels/ is the fast twin of one in layers/"


# Modules, or folders of modules, that open files other than through files/regular.py, and which files these are.
OPENERS = {
    "files/regular.py": "the one way of opening for reading",
    "files/durable.py": "new files, to write",
    "files/locking.py": "the lock file, to write its holder's name",
    "commands/download.py": "a download, to write",
    "kernels/runtime/code_files.py": "a probe, to write",
    "host/": "/proc, /sys and os.devnull",
    "machine/": "/proc",
    "training/run_folder.py": "/proc",
    "kernels/runtime/decorators.py": "the package's own source",
    "study/bugs/planting.py": "the package's own source",
    "study/exercises/stubs.py": "the package's own source",
    "study/lesson_files.py": "the package's lessons",
    "study/exercises/folder.py": "the exercise that the reader wrote",
    "study/bugs/riddles.py": "the riddle that the reader mended",
    "data/shards/token_files.py": "a file that files/regular.py opened, to map it",
    "study/microscope/page.py": "the package's page",
    "study/microscope/boxes.py": "the package's own source",
    "commands/tokenizer.py": "ids, to write",
    "interop/llmc.py": "a model, to write",
}


def test_files_that_may_come_from_elsewhere_are_opened_in_one_place():
    """Opening a FIFO waits for ever and a device never ends: ``files.regular`` refuses them."""
    by_path = {"open", "memmap", "fromfile", "loadtxt", "load_file", "safe_open"}
    of_path = {"read_bytes", "read_text"}  # Path's methods; functions of these names are given the path
    found = set()
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                word = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
                if word in by_path or (word in of_path and not node.args):
                    name = name.removeprefix("gpt_numpy/")
                    found.add(
                        next((folder for folder in OPENERS if folder[-1] == "/" and name.startswith(folder)), name)
                    )
    assert found == set(OPENERS)


def test_functions_take_few_positional_arguments():
    many = set()
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                names = [argument.arg for argument in node.args.posonlyargs + node.args.args]
                count = len(names) - (names[:1] == ["self"])
                if count > MOST_ARGUMENTS:
                    many.add(f"{name}:{node.name}")
    assert many == MANY_ARGUMENTS


def test_no_private_name_is_imported_across_modules():
    private = set()
    for name, tree in TREES.items():
        for module, imported in imports(tree, name):
            last = module.removesuffix("._version").rsplit(".", 1)[-1]
            if (
                module.startswith("gpt_numpy")
                and imported != "__version__"
                and (imported.startswith("_") or last.startswith("_"))
            ):
                private.add((name, f"{module}.{imported}"))
    assert private == set()


def without_annotations(tree):
    """The module without what only a type checker imports."""
    kept = [node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
    return ast.Module(kept, [])


@pytest.mark.parametrize("name", sorted(TREES))
def test_imports_run_downwards(name):
    def floor(part):
        return next(number for number, rooms in enumerate(FLOORS) if part in rooms)

    own = name.removeprefix("gpt_numpy/").split("/")[0].removesuffix(".py")
    for node in ast.walk(without_annotations(TREES[name])):
        if isinstance(node, ast.ImportFrom) and node.level:
            for module, imported in imports(ast.Module([node], []), name):
                parts = module.split(".")
                other = parts[1] if len(parts) > 1 else imported
                if other == "__version__":
                    continue
                assert other == own or floor(other) <= floor(own), f"{name} imports {module}.{imported}"


def test_layers_and_kernels_never_import_each_other():
    for name, tree in TREES.items():
        for here, there in (("layers", "kernels"), ("kernels", "layers")):
            if name.startswith(f"gpt_numpy/{here}/"):
                modules = {f"{module}.{imported}" for module, imported in imports(tree, name)}
                assert not [module for module in modules if module.startswith(f"gpt_numpy.{there}")], name
