from gpt_numpy.files import durable
from gpt_numpy.training.metrics import MetricsLog, read_metrics


def fill(folder, steps):
    log = MetricsLog(folder, 0)
    for step in steps:
        log.write({"kind": "train", "step": step, "loss": step / 3})
    return log


def test_what_comes_after_the_step_is_dropped(tmp_path):
    fill(tmp_path, range(6))
    log = MetricsLog(tmp_path, 3)
    assert [r["step"] for r in read_metrics(log.path)] == [0, 1, 2, 3]
    log.write({"kind": "train", "step": 4, "loss": 4 / 3})
    assert [r["loss"] for r in read_metrics(log.path)] == [step / 3 for step in range(5)]


def test_a_run_that_begins_drops_everything(tmp_path):
    fill(tmp_path, range(6))
    MetricsLog(tmp_path, 0)
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_torn_and_foreign_lines_are_passed_over(tmp_path):
    path = fill(tmp_path, range(3)).path
    with open(path, "ab") as file:
        file.write(b'[1, 2]\n{"step": true}\n\xff\xfe\n{"kind": "train", "step": 3, "lo')
    assert [r["step"] for r in read_metrics(path)] == [0, 1, 2]
    MetricsLog(tmp_path, 2).write({"step": 9})
    assert [r["step"] for r in read_metrics(path)] == [0, 1, 2, 9]


def test_lines_without_measurements_are_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    wrong = ['{"step": 1, "kind": "train"}', '{"step": -1}', '{"step": 1%s}' % ("0" * 400)]
    for name in ("loss", "seconds", "tokens_per_second", "bits_per_byte", "gradient_norm"):
        wrong += [
            f'{{"step": 1, "{name}": {value}}}' for value in ("null", '"1"', "[]", "true", "NaN", "1e999", "1e40")
        ]
    path.write_text("\n".join([*wrong, '{"step": 2, "kind": "train", "loss": 1, "note": null}']))
    assert [record["step"] for record in read_metrics(path)] == [2]


def test_lines_wait_for_a_disk_that_is_full(tmp_path, monkeypatch, capsys):
    log, plain = fill(tmp_path, [0]), durable.append

    def full(path, content, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "append", full)
    log.write({"step": 1})
    log.write({"step": 2})
    assert capsys.readouterr().err.count("warning") == 1
    monkeypatch.setattr(durable, "append", plain)
    log.write({"step": 3})
    assert [r["step"] for r in read_metrics(log.path)] == [0, 1, 2, 3]


def test_a_line_that_is_nested_too_deep_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + b"[" * 100_000 + b'\n{"step": 2}\n')
    assert [record["step"] for record in read_metrics(path)] == [1, 2]
