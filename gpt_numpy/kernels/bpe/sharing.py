"""Several threads that take tasks in turn; the calling thread is one of them."""

import itertools
import threading


def in_turn(task, count, threads):
    """Call ``task(number)`` for every number below ``count`` on ``threads`` threads.

    The error of the lowest number is raised; tasks that have not begun by then are left out.
    """
    numbers, errors = itertools.count(), {}

    def work():
        for number in numbers:
            if number >= count or errors:
                return
            try:
                task(number)
            except BaseException as error:  # KeyboardInterrupt too: it is raised again below
                errors[number] = error

    others = [threading.Thread(target=work) for _ in range(min(threads, count) - 1)]
    for thread in others:
        thread.start()
    work()
    for thread in others:
        thread.join()
    if errors:
        raise errors[min(errors)]
