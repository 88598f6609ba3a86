"""Memory in large pages: zeros of the size asked for, aligned, and kept while an array shows them."""

import gc

import numpy as np
import pytest

from gpt_numpy.host import pages


@pytest.mark.parametrize("advised", [True, False])
@pytest.mark.parametrize("size", [1, 4096, (1 << 21) - 1, 1 << 21, (5 << 20) + 64])
def test_zeros_begin_on_a_cache_line_and_can_be_written(size, advised, monkeypatch):
    monkeypatch.setattr(pages, "_ADVISED", advised and pages._ADVISED)
    memory = pages.large_zeros(size)
    assert memory.dtype == np.uint8 and memory.shape == (size,)
    assert not memory.any() and memory.ctypes.data % 64 == 0
    memory[:] = 7
    last = memory[-1:].view()
    del memory
    gc.collect()
    assert (last == 7).all()


def test_a_system_without_large_pages_gives_small_ones(monkeypatch):
    class Refusing(pages.mmap.mmap):
        def madvise(self, *args):
            raise OSError(22, "Invalid argument")

    if not pages._ADVISED:
        pytest.skip("this system takes no advice on pages")
    monkeypatch.setattr(pages.mmap, "mmap", Refusing)
    assert not pages.large_zeros(3 << 20).any()


def test_advice_changes_nothing_but_speed():
    memory = np.full(10 << 20, 3, dtype=np.uint8)
    for address in (memory.ctypes.data, memory.ctypes.data + 1, 0, 12345):
        pages.advise_large(address, memory.nbytes)
    assert (memory == 3).all()
