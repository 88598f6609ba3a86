"""A generated text of many kinds, the same for the same seed: prose, code, Han and kana, emoji, long numbers, HTML.

Words are drawn from made-up vocabularies by Zipf's law. As in natural text, a few words come very often, and new words
keep coming, so caches behave as they do with natural text.
"""

from __future__ import annotations

import numpy as np

N_WORDS = 40_000
_ONSETS = "b c d f g h j k l m n p r s t v w z br ch cl cr dr fl gr pl pr sh sl sp st str th tr wh".split()
_VOWELS = "a e i o u ai ea ee ie oo ou".split()
_CODAS = ["", "", "", "n", "r", "s", "t", "l", "m", "nd", "ng", "st", "ck", "ght"]
_EMOJI = ["🙂", "😂", "❤️", "👍🏽", "👩\u200d👧", "🇫🇷", "🎉", "🔥", "✨", "🤖", "☕", "🏳️\u200d🌈"]
_KANA = [chr(code) for code in (*range(0x3042, 0x3094), *range(0x30A2, 0x30F4))]
_HAN = [chr(code) for code in range(0x4E00, 0x9FA6)]
_HANGUL = [chr(code) for code in range(0xAC00, 0xD7A4)]


def _words(rng):
    """N_WORDS made-up words, the short ones first."""
    made = {}
    while len(made) < N_WORDS:
        n_syllables = 1 + min(rng.geometric(0.45) - 1, 4)
        parts = [rng.choice(part) for _ in range(n_syllables) for part in (_ONSETS, _VOWELS, _CODAS)]
        made["".join(parts)] = None
    return sorted(made, key=len)


def _zipf(rng, items, count):
    """``count`` of ``items``, the n-th about 1/n as often as the first, as an object array."""
    ranks = np.exp(rng.random(count) * np.log(len(items))).astype(np.int64) - 1
    return np.array(items, dtype=object)[np.minimum(ranks, len(items) - 1)]


def _sprinkle(rng, items, share, others):
    """Replace a ``share`` of ``items`` by random ones of ``others``."""
    chosen = rng.random(len(items)) < share
    items[chosen] = np.array(others, dtype=object)[rng.integers(len(others), size=int(chosen.sum()))]
    return items


def _prose(rng, words, n):
    tails = _sprinkle(
        rng, np.full(n, " ", dtype=object), 0.16, [", ", ". ", ".\n\n", "'s ", "n't ", "; ", "'ll ", "? "]
    )
    return "".join(np.column_stack([_zipf(rng, words, n), tails]).ravel().tolist())


def _code(rng, words, n):
    joints = [".", "(", ")", "_", " = ", ", ", ":\n        ", "\n    ", "\n\n\ndef ", "[0]", " + ", " # ", '"', "()\n"]
    tails = np.array(joints, dtype=object)[rng.integers(len(joints), size=n)]
    return "".join(np.column_stack([_zipf(rng, words, n), tails]).ravel().tolist())


def _cjk(rng, words, n):
    han = list(_HAN)
    rng.shuffle(han)
    letters = np.concatenate([_zipf(rng, han, n), _zipf(rng, _KANA, n // 3), _zipf(rng, _HANGUL, n // 6)])
    block = 24  # letters of one script beside each other
    letters = letters[: len(letters) // block * block].reshape(-1, block)
    letters = letters[rng.permutation(len(letters))].ravel()
    tails = _sprinkle(
        rng, np.full(len(letters), "", dtype=object), 0.1, ["，", "。", "、", "！", "\n", "（", "）", " "]
    )
    return "".join(np.column_stack([letters, tails]).ravel().tolist())


def _emoji(rng, words, n):
    items = _sprinkle(rng, _zipf(rng, words, n), 0.5, _EMOJI)
    return "".join(
        np.column_stack([items, _sprinkle(rng, np.full(n, " ", dtype=object), 0.3, ["", "!! "])]).ravel().tolist()
    )


def _numbers(rng, words, n):
    numbers = rng.integers(10 ** rng.integers(1, 18, size=n))
    return "".join(
        np.column_stack(
            [
                numbers.astype("U").astype(object),
                _sprinkle(rng, np.full(n, ",", dtype=object), 0.5, [" ", "\n", ".", "-", " 0x"]),
            ]
        )
        .ravel()
        .tolist()
    )


def _html(rng, words, n):
    tags = ['<div class="', '">', "</div>\n", "<p>", "</p>\n", '<a href="/', "&nbsp;", "&amp;", "<br/>", " "]
    tails = np.array(tags, dtype=object)[rng.integers(len(tags), size=n)]
    return "".join(np.column_stack([_zipf(rng, words, n), tails]).ravel().tolist())


PARTS = {"prose": _prose, "code": _code, "CJK": _cjk, "emoji": _emoji, "numbers": _numbers, "HTML": _html}
_BYTES_AN_ITEM = {"prose": 6, "code": 7, "CJK": 5, "emoji": 9, "numbers": 10, "HTML": 9}


def generate(size: int, seed: int = 0) -> dict[str, str]:
    """kind → text: about ``size`` bytes in total, the same share of each kind."""
    rng = np.random.default_rng(seed)
    words, share = _words(rng), size // len(PARTS)
    texts = {}
    for name, make in PARTS.items():
        texts[name] = make(rng, words, max(share // _BYTES_AN_ITEM[name], 100))
    return texts
