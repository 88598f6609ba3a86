"""numba's internal names that the package uses; any version of numba may change a name with an underscore.

Only this module uses such names. Importing the module looks all of them up. If a name is missing, the error states the
versions that have the name. `OLDEST` and `NEWEST` are the versions that the tests have run with; setup.cfg has the same
bounds.
"""

import hashlib
import inspect
import os
import pickle
import sys
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba.core import cgutils
from numba.core.codegen import JITCPUCodegen
from numba.core.compiler import Compiler, CompileResult
from numba.core.runtime import rtsys
from numba.core.serialize import dumps
from numba.np.ufunc import parallel as _pool

from ..._version import __version__
from ...errors import KernelError
from .code_files import CodeFiles, Damaged, folders
from .emitting import CHECK_BOUNDS, HAS_BFLOAT16, VECTOR_BYTES

OLDEST, NEWEST = "0.61", "0.68"

VERSION = f"gpt_numpy {__version__}, numba {numba.__version__}, llvmlite {llvmlite.__version__}"
_SETTINGS = (
    f"vectors of {VECTOR_BYTES} bytes, bounds {'checked' if CHECK_BOUNDS else 'unchecked'}, "
    f"bfloat16 {'multiplied' if HAS_BFLOAT16 else 'widened'}"
)


def _taken(owner, name):
    """``owner.name``, or an error that says which numba has it."""
    try:
        return getattr(owner, name)
    except AttributeError:
        raise KernelError(
            f"{owner.__name__}.{name}, which the kernels need, is not in this numba: install a version that has it",
            field="numba",
            found=numba.__version__,
            expected=f"{OLDEST} to {NEWEST}",
        ) from None


_reduce, _rebuild = _taken(CompileResult, "_reduce"), _taken(CompileResult, "_rebuild")
_taken(_pool, "_is_initialized")  # for ``gpt_numpy.host.forks``, which does not import numba
_launch_threads = _taken(_pool, "_launch_threads")
_ENVIRONMENT = "_ZN08NumbaEnv"  # how the names of those pointers begin
for _name in ("_optimize_final_module", "_finalize_final_module", "_finalize_dynamic_globals"):
    _taken(_taken(JITCPUCodegen, "_library_class"), _name)
for _name in ("_create_empty_module", "_add_module"):
    _taken(JITCPUCodegen, _name)


def start_threads():
    """Start numba's pool of threads in this process."""
    _launch_threads()
    _taken(_pool, "_set_num_threads")  # numba defines it when the pool starts


def set_threads(number):
    """The number of threads that work for the Python thread that calls this; only once the pool runs."""
    _pool._set_num_threads(number)


class Unoptimised(Compiler):
    """Compiles for linking into others only: no optimising, and no machine code of its own.

    The library into which the result is linked is optimised, and turned into machine code, as a whole.
    """

    def define_pipelines(self):
        state = self.state
        library = state.library = state.targetctx.codegen().create_library(state.func_id.func_qualname)
        library._optimize_final_module = lambda: None
        library._finalize_final_module = lambda: _finish_without_code(library)
        return super().define_pipelines()


def _finish_without_code(library):
    """Stands for ``_finalize_final_module``: of a part's module, only numba's pointers to environments become memory."""
    library._finalize_dynamic_globals()
    module = library._codegen._create_empty_module(f"environments of {library.name}")
    for variable in library._final_module.global_variables:
        if variable.name.startswith(_ENVIRONMENT):
            pointer = ir.GlobalVariable(module, cgutils.voidptr_t, name=variable.name)
            pointer.linkage, pointer.initializer = "common", ir.Constant(cgutils.voidptr_t, None)
    library._codegen._add_module(llvm.parse_assembly(str(module)))
    library._codegen._engine.finalize_object()
    library._finalized = True


def compiled(function, stamp, **options):
    """numba's dispatcher for ``function``, which keeps its code in `code_files`; ``stamp`` identifies the source."""
    dispatcher = numba.njit(**options)(function)
    _taken(dispatcher, "_cache")
    if Path(inspect.getfile(function)).is_file():  # not typed in at a prompt
        dispatcher._cache = _Cache(function, stamp)
    return dispatcher


def is_kept(kernel):
    """Whether compiled code of ``kernel`` is on disk. True where none can be: there is nothing to prepare."""
    kept = getattr(kernel, "compiled", kernel)._cache
    return not isinstance(kept, _Cache) or kept._files.holds_any()


class _Cache:
    """The part of numba's ``numba.core.caching._Cache`` that a dispatcher calls."""

    def __init__(self, function, stamp):
        self._function, self._enabled = function, True
        self._files = CodeFiles(_file_name(function), VERSION, stamp)

    @property
    def cache_path(self):
        return str(folders()[0])

    def enable(self):
        self._enabled = True

    def disable(self):
        self._enabled = False

    def flush(self):
        """Called by ``dispatcher.recompile()``, after which the new code replaces what is kept."""

    def load_overload(self, sig, target_context):
        """The compiled function for the argument types ``sig``, or None where it has to be compiled.

        numba's own twin calls ``target_context.refresh()``, which registers all of numba's functions. Only compiling needs
        them, and calls it too; code that is loaded needs the memory functions alone. That saves 0.12 s in every process.
        """
        rtsys.initialize(target_context)
        key = self._key(sig, target_context.codegen())
        payload = self._files.load(key) if self._enabled and key else None
        if payload is None:
            return None
        try:
            return _rebuild(target_context, *pickle.loads(payload))
        except Exception as error:  # whatever is wrong with it: compiling is always possible
            self._files.discard(
                folders()[0], Damaged(f"cannot be loaded ({type(error).__name__}: {error})", path=self._files.name)
            )
            return None

    def save_overload(self, sig, result):
        """Keep what was compiled for the argument types ``sig``."""
        key = self._key(sig, result.codegen)
        lasting = not result.library.has_dynamic_globals and all(part.can_cache for part in result.lifted)
        if self._enabled and key and lasting:
            self._files.save(key, dumps(_reduce(result)))

    def _key(self, sig, codegen):
        """What decides the machine code besides the source: types, CPU, settings, what the function closes over.

        None for types that another process names otherwise, such as a function, whose name is its address.
        """
        types = str(sig)
        if " at 0x" in types:
            return None
        code, cells = self._function.__code__, self._function.__closure__ or ()
        closed_over = hashlib.sha256(dumps(tuple(cell.cell_contents for cell in cells))).hexdigest() if cells else ""
        source = hashlib.sha256(code.co_code).hexdigest()
        return "\n".join((types, str(codegen.magic_tuple()), _SETTINGS, source, str(code.co_firstlineno), closed_over))


def _file_name(function):
    """A name for the function's files: its module's, its own, and the Python's whose pickles they hold."""
    path = Path(inspect.getfile(function)).absolute()
    kernels = Path(__file__).parents[1]
    if path.is_relative_to(kernels):
        module = ".".join(path.relative_to(kernels).with_suffix("").parts)
    else:
        module = f"{path.stem}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    name = function.__qualname__.replace("<", "").replace(">", "")
    return f"{module}.{name}.py{sys.version_info[0]}{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
