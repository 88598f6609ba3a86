import threading

import numpy as np
import pytest

from gpt_numpy.training import checkpoint
from gpt_numpy.training.saver import Saver


def test_what_is_written_is_the_state_at_the_call(tmp_path, make_checkpoint):
    live = make_checkpoint(7)
    saver = Saver(tmp_path, 2, live.params)
    expected = [a.copy() for a in (live.params.flat, live.first, live.second)]
    saver.save(live)
    for array in (live.params.flat, live.first, live.second):
        array += 1  # the next update, while the writer still writes
    saver.finish()
    loaded = checkpoint.load(tmp_path / "step-7")
    for array, wanted in zip((loaded.params.flat, loaded.first, loaded.second), expected):
        assert np.array_equal(array, wanted)


def test_training_does_not_wait_for_the_disk(tmp_path, make_checkpoint, monkeypatch):
    slow, plain = threading.Event(), checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *args: slow.wait(30) and plain(*args))
    saver = Saver(tmp_path, 2, make_checkpoint(7).params)
    saver.save(make_checkpoint(7))
    assert not (tmp_path / "step-7").exists()
    slow.set()
    saver.finish()
    assert (tmp_path / "step-7").exists()


def test_an_error_comes_out_where_training_looks_next(tmp_path, make_checkpoint, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    saver = Saver(tmp_path, 2, make_checkpoint(7).params)
    saver.save(make_checkpoint(7))
    with pytest.raises(OSError, match="No space"):
        saver.finish()
    saver.check()  # said once
    saver.finish()
    saver.save(make_checkpoint(7))
    saver._thread.join()
    with pytest.raises(OSError, match="No space"):
        saver.check()
    saver.save(make_checkpoint(7))
    with pytest.raises(OSError, match="No space"):
        saver.save(make_checkpoint(8))


def test_buffers_are_taken_once(tmp_path, make_checkpoint):
    saver, seen = Saver(tmp_path, 1, make_checkpoint(7).params), set()
    for step in range(1, 6):
        saver.save(make_checkpoint(step))
        saver.finish()
        seen.add(tuple(id(buffer) for buffer in saver._buffers))
    assert len(seen) == 1
    assert not [t for t in threading.enumerate() if t.name == "checkpoint"]
