"""Mutants of a file: damage to its bytes, changes of its JSON, changes of a safetensors header."""

import copy
import json

HOSTILE = [
    *(None, True, False, -1, 0, 1, 2, 1.5, 2**31, 2**63, -(2**63), 10**400, 1e308, float("nan"), float("inf")),
    *("", "x", "../x", "\0", "\x1b[31m", "é", "x" * 100_000, [], {}, [1] * 20_000, {"a": {"a": {}}}),
    *([[[[[[[[[[]]]]]]]]]], {str(i): i for i in range(5_000)}),
]
PIECES = [
    b"",
    b"\0",
    b"\n",
    b"\r\n",
    b"\xff",
    b'"',
    b"{",
    b"}",
    b"[" * 70_000,
    b",",
    b"1e999",
    b"-",
    b"\\u0000",
    b"\x1b",
]


def mutant(content, name, rng):
    """One mutant of ``content``, the bytes of the file ``name``."""
    if name.endswith(".safetensors") and rng.random() < 0.5:
        return _header_changed(content, rng)
    if name.endswith(".json") and rng.random() < 0.6:
        return _json_changed(content, rng)
    if name.endswith(".jsonl") and rng.random() < 0.6:
        lines = content.split(b"\n")
        i = rng.randrange(len(lines))
        lines[i] = _json_changed(lines[i] or b"{}", rng)
        return b"\n".join(lines)
    return _bytes_changed(content, rng)


def _bytes_changed(content, rng):
    place = rng.randrange(len(content) + 1)
    other = rng.randrange(len(content) + 1)
    first, last = min(place, other), max(place, other)
    short = first + min(last - first, rng.choice((1, 2, 8, 100)))
    match rng.randrange(9):
        case 0:
            return content[:place]
        case 1 | 2:
            flipped = bytearray(content or b"\0")
            flipped[place % len(flipped)] ^= 1 << rng.randrange(8)
            return bytes(flipped)
        case 3:
            return content[:first] + content[short:]
        case 4:
            return content[:place] + content[first:short] + content[place:]
        case 5:
            return content[:place] + rng.choice(PIECES) + content[place:]
        case 6:
            return content[:first] + bytes(rng.randrange(256) for _ in range(short - first)) + content[short:]
        case 7:
            return content + content[first:last]
        case _:
            lines = content.split(b"\n")
            rng.shuffle(lines) if rng.random() < 0.3 else lines.insert(rng.randrange(len(lines)), rng.choice(lines))
            return b"\n".join(lines)


def _json_changed(content, rng):
    try:
        value = json.loads(content)
    except ValueError:
        return _bytes_changed(content, rng)
    return _dumped(_changed(value, rng), rng)


def _dumped(value, rng):
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.1 and isinstance(value, dict) and value:  # a key twice
        key = rng.choice(list(value))
        text = text[:-1] + f", {json.dumps(key)}: {json.dumps(rng.choice(HOSTILE))}}}"
    return text.encode("utf-8", "surrogatepass")


def _changed(value, rng):
    """``value`` with one or two of the values in it replaced, removed, renamed or repeated."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2))):
        owner = value
        while isinstance(owner, (dict, list)) and owner:
            keys = list(owner) if isinstance(owner, dict) else range(len(owner))
            key = rng.choice(keys)
            if isinstance(owner[key], (dict, list)) and owner[key] and rng.random() < 0.8:
                owner = owner[key]
                continue
            match rng.randrange(6):
                case 0:
                    del owner[key]
                case 1 if isinstance(owner, dict):
                    owner[rng.choice((key.upper(), key + "x", "x", "", "n_head", "special"))] = owner.pop(key)
                case 2 if isinstance(owner, list):
                    owner.insert(rng.randrange(len(owner) + 1), copy.deepcopy(owner[key]))
                case 3 if type(owner[key]) is int:
                    owner[key] += rng.choice((-1, 1, 7, -7))
                case 4:
                    owner[key] = copy.deepcopy(owner[rng.choice(keys)])
                case _:
                    owner[key] = copy.deepcopy(rng.choice(HOSTILE))
            break
    return value


def _header_changed(content, rng):
    """A safetensors file with a changed header, whose length fits again."""
    length = int.from_bytes(content[:8], "little")
    header = _json_changed(content[8 : 8 + length], rng)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]
