"""Opening a prepared folder: the tokens that were written, or an error that says what is wrong; nothing else."""

import hashlib
import json
import os
import random
import shutil

import numpy as np
import pytest

from gpt_numpy.data.rows.windows import batch
from gpt_numpy.data.shards.dataset import open_dataset
from gpt_numpy.data.shards.manifest import MANIFEST, canonical_json, sha256_of
from gpt_numpy.data.shards.preparing import Settings, prepare
from gpt_numpy.data.text.opening import find_files
from gpt_numpy.errors import DataError


def tokens_of(dataset):
    return dataset.train[:].tolist(), dataset.validation[:].tolist()


def test_a_folder_opens_with_all_it_holds(prepared, tokenizer):
    dataset = open_dataset(prepared)
    assert dataset.vocab_size == tokenizer.n_vocab
    assert dataset.eot_id == tokenizer.eot_id
    assert dataset.train.dtype == np.uint16
    assert len(dataset.train.arrays) > 1
    assert dataset.stride(64) == 64
    assert tokens_of(open_dataset(str(prepared), verify=False)) == tokens_of(dataset)
    assert len(dataset.sha256) == 64
    inputs, targets = batch(dataset.train, 3, 8, seed=0, step=0)
    assert np.array_equal(inputs[:, 1:], targets[:, :-1])


def test_an_unfinished_folder_says_so(prepared):
    (prepared / "progress.json").write_text("{}")
    (prepared / MANIFEST).unlink()
    with pytest.raises(DataError, match="not come to its end"):
        open_dataset(prepared)


def test_hidden_files_are_passed_over(prepared):
    (prepared / ".DS_Store").write_text("x")
    (prepared / "tokenizer" / ".DS_Store").write_text("x")
    open_dataset(prepared)


def test_a_flipped_bit_names_its_shard(prepared):
    content = bytearray((prepared / "train-00001.bin").read_bytes())
    content[1500] ^= 1
    (prepared / "train-00001.bin").write_bytes(content)
    with pytest.raises(DataError, match="train-00001.bin: its bytes are not the ones"):
        open_dataset(prepared)


# ---- files: every mutation takes the folder and a random generator, and changes something ------------------------


def flip(folder, rng):
    path = rng.choice(files_of(folder))
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def replace_byte(folder, rng):
    path = rng.choice(files_of(folder))
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    content[place] = (content[place] + rng.randrange(1, 256)) % 256
    path.write_bytes(content)


def cut(folder, rng):
    path = rng.choice(files_of(folder))
    os.truncate(path, rng.randrange(path.stat().st_size))


def extend(folder, rng):
    with open(rng.choice(files_of(folder)), "ab") as file:
        file.write(rng.randbytes(rng.choice([1, 2, 4, 100])))


def swap_content(folder, rng):
    one, other = rng.sample(files_of(folder), 2)
    contents = other.read_bytes(), one.read_bytes()
    for path, content in zip((one, other), contents, strict=True):
        path.write_bytes(content)


def rename(folder, rng):
    path = rng.choice(files_of(folder))
    path.rename(
        path.with_name(rng.choice(["train-99999.bin", "x.bin", "train-00001.bin.bak", ".hidden", "TRAIN-00000.bin"]))
    )


def remove(folder, rng):
    rng.choice(files_of(folder)).unlink()


def add(folder, rng):
    source = rng.choice(files_of(folder))
    names = ["train-00099.bin", "validation-00099.bin", "extra.txt", "progress.json", "train-00001 (1).bin"]
    shutil.copy(source, rng.choice([folder, folder / "tokenizer"]) / rng.choice(names))


def special(folder, rng):
    path = rng.choice(files_of(folder))
    kind = rng.choice(["link", "outside", "folder", "fifo"])
    moved = folder.parent / f"moved-{folder.name}"
    path.rename(moved)
    if kind == "link":
        path.symlink_to(moved)
    elif kind == "outside":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)


def move_between_folders(folder, rng):
    path = rng.choice(files_of(folder))
    path.rename(folder / path.name if path.parent != folder else folder / "tokenizer" / path.name)


# ---- manifests whose own hash is right --------------------------------------------------------------------------


def hostile_manifest(folder, rng):
    path = folder / MANIFEST
    manifest = json.loads(path.read_bytes())
    del manifest["sha256"]
    before = json.dumps(manifest, sort_keys=True)
    while json.dumps(manifest, sort_keys=True) == before:
        rng.choice(MANIFEST_CHANGES)(manifest, rng)
    manifest["sha256"] = sha256_of(manifest)
    path.write_bytes(canonical_json(manifest))


def change_shard_name(manifest, rng):
    name = rng.choice(
        ["../train-00000.bin", "/etc/passwd", "tokenizer/vocab.json", "train-00000.bin", "", ".", "a\0b", "con"]
    )
    rng.choice(manifest["splits"]["train"]["shards"][1:])["name"] = name


def change_number(manifest, rng):
    split = rng.choice(list(manifest["splits"].values()))
    target, fields = rng.choice(
        [
            (manifest, ["vocab_size", "eot_id", "row_length"]),
            (split, ["tokens", "documents", "text_bytes", "cuts", "padding", "cut_documents"]),
            (rng.choice(split["shards"]), ["tokens", "documents"]),
        ]
    )
    field = rng.choice(fields)
    wrong = [-1, 2**63, 2**70, 1.5, True, None, "7", [], {}, target[field] + 0.0, str(target[field])]
    if field != "text_bytes":  # which nothing else in the folder says, so that any number may be right
        wrong.append(2**31)
    if target is manifest:
        wrong += [target[field] + 1, 5, 65]
    elif field in ("tokens", "documents"):
        wrong += [target[field] + 1, target[field] - 1, 0]
    target[field] = rng.choice(wrong)


def drop_or_add_field(manifest, rng):
    train = manifest["splits"]["train"]
    record = rng.choice([manifest, train, train["shards"][0], manifest["inputs"][0], manifest["splits"]])
    if rng.random() < 0.5:
        record["extra"] = 1
    else:
        del record[rng.choice([name for name in record if record is not manifest["splits"] or name == "train"])]


def change_shards(manifest, rng):
    shards = manifest["splits"][rng.choice(["train", "validation"])]["shards"]
    change = rng.randrange(4)
    if change == 0:
        shards.reverse() if len(shards) > 1 else shards.clear()
    elif change == 1:
        shards.append(dict(shards[0]))
    elif change == 2:
        shards.pop()
    else:
        shards[0] = rng.choice([None, [], "train-00000.bin", 7])


def change_hash(manifest, rng):
    target, field = rng.choice(
        [
            (manifest["splits"]["train"]["shards"][0], "sha256"),
            (manifest["tokenizer"], "vocab.json"),
            (manifest["tokenizer"], "../../secret"),
        ]
    )
    target[field] = rng.choice(["0" * 64, "A" * 64, "0" * 63, "", None, 0, "zz" * 32])


MANIFEST_CHANGES = [change_shard_name, change_number, drop_or_add_field, change_shards, change_hash]


def hostile_text(folder, rng):
    """A manifest that is no strict JSON, or hardly one."""
    path = folder / MANIFEST
    text = path.read_text()
    path.write_text(
        rng.choice(
            [
                "[" * 100_000,
                "{}",
                "null",
                "",
                text.replace('"eot_id"', '"eot_id": 1, "eot_id"'),
                text.replace("\n", "\r\n"),
                "\ufeff" + text,
                text.replace('"eot_id": ', '"eot_id": NaN, "x": '),
                json.dumps(json.loads(text)),
                text + text,
            ]
        )
    )


def hostile_shard(folder, rng):
    """A shard that says something else, with hashes and sizes made right in the manifest."""
    path = folder / "train-00000.bin"
    content = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        word = rng.randrange(7)
        content[4 * word] ^= 1 << rng.randrange(8)
    else:
        place = 1024 + 2 * rng.randrange((len(content) - 1024) // 2)
        content[place : place + 2] = rng.choice(
            [b"\xff\xff", (320).to_bytes(2, "little")]
        )  # past the vocabulary of 320
    path.write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    del manifest["sha256"]
    manifest["splits"]["train"]["shards"][0]["sha256"] = hashlib.sha256(content).hexdigest()
    manifest["sha256"] = sha256_of(manifest)
    (folder / MANIFEST).write_bytes(canonical_json(manifest))


MUTATIONS = [
    flip,
    replace_byte,
    cut,
    extend,
    swap_content,
    rename,
    remove,
    add,
    special,
    move_between_folders,
    hostile_manifest,
    hostile_manifest,
    hostile_manifest,
    hostile_text,
    hostile_shard,
]


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def refuse_all(prepared, tmp_path, numbers):
    """Open one mutated copy after the other; each must be refused with a DataError. Returns the mutations seen."""
    right = tokens_of(open_dataset(prepared))
    seen = set()
    for number in numbers:
        rng = random.Random(number)
        mutate = MUTATIONS[number % len(MUTATIONS)]
        folder = tmp_path / f"mutant{number}"
        shutil.copytree(prepared, folder)
        before = {path: path.read_bytes() for path in files_of(folder)}
        while {path: path.read_bytes() for path in files_of(folder)} == before:
            mutate(folder, rng)  # a swap of two equal files changes nothing: again
            if mutate is special:
                break
        with pytest.raises(DataError) as caught:
            pytest.fail(f"{mutate.__name__} {number} was read: {tokens_of(open_dataset(folder)) == right}")
        assert str(folder) in str(caught.value), (mutate.__name__, number, str(caught.value))
        shutil.rmtree(folder)
        (tmp_path / f"moved-{folder.name}").unlink(missing_ok=True)
        seen.add(mutate)
    return seen


def test_mutated_folders_are_refused(prepared, tmp_path):
    assert len(refuse_all(prepared, tmp_path, range(300))) == len(set(MUTATIONS))


@pytest.mark.campaign
def test_five_thousand_mutated_folders_are_refused(prepared, tmp_path):
    refuse_all(prepared, tmp_path, range(1000, 6000))


def test_a_shard_cut_anywhere_is_refused_without_hashing(prepared):
    path = prepared / "train-00000.bin"
    content = path.read_bytes()
    for size in (*range(0, 1200, 7), len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match="train-00000.bin"):
            open_dataset(prepared, verify=False)


def test_fitted_rows_refuse_shards_of_broken_rows(corpus, tokenizer, tmp_path):
    prepare([corpus], tokenizer, tmp_path / "fit", Settings(block_size=31))
    path = tmp_path / "fit" / MANIFEST
    manifest = json.loads(path.read_bytes())
    del manifest["sha256"]
    manifest["row_length"] = 33
    path.write_bytes(canonical_json({**manifest, "sha256": sha256_of(manifest)}))
    with pytest.raises(DataError, match="not whole rows"):
        open_dataset(tmp_path / "fit")


# ---- what else a folder says -------------------------------------------------------------------------------------


def as_version_1(folder, **changes):
    """Make ``folder`` one of the first version, whose manifest had no identity of the tokenizer."""
    content = json.loads((folder / MANIFEST).read_text())
    for name in ("sha256", "tokenizer_identity"):
        del content[name]
    content.update(format="gpt_numpy tokens, version 1", **changes)
    (folder / MANIFEST).write_bytes(canonical_json({**content, "sha256": sha256_of(content)}))


def test_a_folder_of_the_first_version_is_read_unless_its_rows_hide_ends(prepared, corpus, tokenizer, tmp_path):
    expected = tokens_of(open_dataset(prepared))
    as_version_1(prepared)
    assert tokens_of(open_dataset(prepared)) == expected
    prepare([corpus], tokenizer, tmp_path / "rows", Settings(block_size=32))
    as_version_1(tmp_path / "rows")
    with pytest.raises(DataError, match="where every document ends.*prepare the data again"):
        open_dataset(tmp_path / "rows")


@pytest.mark.parametrize("block_size", [None, 16])
def test_without_a_validation_split_the_end_is_held_out(corpus, tokenizer, tmp_path, block_size):
    prepare([corpus], tokenizer, tmp_path / "out", Settings(block_size=block_size, shard_tokens=300))
    dataset = open_dataset(tmp_path / "out")
    training, validation = dataset.divided(0.5)
    assert training[:].tolist() + validation[:].tolist() == dataset.train[:].tolist()
    assert 0.5 <= len(validation) / len(dataset.train) < 0.56
    if block_size:
        assert len(training) % 17 == 0
    else:
        assert training[len(training) - 1 :].tolist() == [tokenizer.eot_id]
    with pytest.raises(DataError, match="no validation split"):
        dataset.divided(0.0)


def test_the_two_splits_are_used_where_there_are_two(prepared):
    dataset = open_dataset(prepared)
    assert dataset.divided(0.3) == (dataset.train, dataset.validation)


@pytest.mark.parametrize("lost", ["manifest.json", "shards"])
def test_a_folder_of_shards_is_never_read_as_text(prepared, lost):
    if lost == "manifest.json":
        (prepared / MANIFEST).unlink()
        message = "lacks manifest.json"
    else:
        message = "is not text.*one prepared folder by itself"
    for inputs in (prepared, prepared.parent):
        with pytest.raises(DataError, match=message):
            find_files(inputs)
