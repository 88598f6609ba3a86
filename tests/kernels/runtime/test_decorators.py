import shutil
from pathlib import Path

import numpy as np

from gpt_numpy import kernels
from gpt_numpy.kernels import gelu
from gpt_numpy.kernels.bpe import bits
from gpt_numpy.kernels.runtime.decorators import kernel, package_stamp, part


def test_an_edit_in_any_room_or_a_moved_file_changes_the_stamp_of_the_cache(tmp_path):
    """Compiled code of one room inlines another's: an edit two folders away must not be answered from the cache."""
    original = tmp_path / "original"
    shutil.copytree(Path(kernels.__file__).parent, original, ignore=shutil.ignore_patterns("__pycache__"))
    stamp = package_stamp(original)
    for number, path in enumerate(sorted(original.rglob("*.py"))):
        edited = tmp_path / str(number)
        shutil.copytree(original, edited)
        assert package_stamp(edited) == stamp, "the stamp depends on where the package lies"
        target = edited / path.relative_to(original)
        target.write_bytes(target.read_bytes() + b"#")
        package_stamp.cache_clear()
        assert package_stamp(edited) != stamp, path
    moved = tmp_path / "moved"
    shutil.copytree(original, moved)
    (moved / "gemm" / "tile.py").rename(moved / "gemm" / "other.py")
    assert package_stamp(moved) != stamp


def test_the_stamp_of_a_kernel_is_that_of_the_whole_package():
    assert gelu._forward.compiled._cache._files.stamp == package_stamp()
    assert package_stamp() == package_stamp(Path(kernels.__file__).parent)


def test_a_part_gets_no_machine_code_of_its_own():
    """Nobody calls it but kernels, whose code holds it: code of its own would double the time of the first start."""
    for decorator in (part, bits.called, bits.inlined):

        @decorator
        def double(x):
            return 2 * x

        @kernel()
        def sum_of_doubles(x):
            total = 0.0
            for i in range(x.size):
                total += double(x[i])
            return total

        assert sum_of_doubles(np.array([1.0, 2.5])) == 7
        for function, has_code in ((double, False), (sum_of_doubles, True)):
            (result,) = function.overloads.values()
            assert bool(result.library.get_pointer_to_function(result.fndesc.mangled_name)) == has_code
