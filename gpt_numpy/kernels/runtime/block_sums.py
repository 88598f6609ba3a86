"""Sums over blocks of rows, added up in the order of the blocks: the gradients of weights that every row shares.

A backward's tasks each leave the sums over their rows in a block of its own. Which rows make a block follows from the
shape alone, so the totals have the same bits for any number of threads.
"""

from .decorators import part
from .recording import not_only_launches
from .threads import launcher, parallel_for
from .vectors import lanes, load_tail, store_tail

_COLUMNS = 512  # a task


@part
def _add_columns(task, sums, first, width, out, add):
    """out (+)= Σ of the blocks' columns from ``first`` on, ``width`` elements between blocks; the columns of a task."""
    stop = min(out.size, (task + 1) * _COLUMNS)
    for j in range(task * _COLUMNS, stop, lanes(out)):
        left = stop - j
        total = load_tail(sums, first + j, left)
        for here in range(first + width + j, sums.size, width):
            total += load_tail(sums, here, left)
        if add:
            total = load_tail(out, j, left) + total
        store_tail(out, j, total, left)


@part
def _add_task(worker, task, sums, width, out, out2, add):
    _add_columns(task, sums, 0, width, out, add)
    _add_columns(task, sums, out.size, width, out2, add)


@launcher
def _add(n_tasks, sums, width, out, out2, add):
    parallel_for(_add_task, n_tasks, (sums, width, out, out2, add))


def add_blocks(sums, n_blocks, gradients, add):
    """gradients, one or two arrays (C,), (+)= Σ over the blocks of sums, flat, (n_blocks · len(gradients) · C,).

    The second gradient may be None: its sums are left out. No argument is checked here.
    """
    out, out2 = gradients[0], gradients[-1]
    if len(gradients) == 1 or out2 is None:
        out2 = out[:0]
    if n_blocks == 0:
        not_only_launches()
        out *= add
        out2 *= add
        return
    _add(-(-out.size // _COLUMNS), sums, sums.size // n_blocks, out, out2, add)
