import numba.core.caching
import numpy as np
import pytest

from gpt_numpy.kernels.jit import kernel


def _double(x):
    return x + x


def test_without_a_folder_for_compiled_code_kernels_run_and_say_so(monkeypatch):
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR"):
        compiled = kernel()(_double)
    np.testing.assert_array_equal(compiled(np.arange(3)), [0, 2, 4])
