"""Pairwise covering arrays: few combinations in which each pair of values of any two factors occurs.

Greedy, after Cohen et al. 1997 ("The AETG system"): each new combination is the best of several random ones that hold a
pair not covered yet. ``repair`` makes a combination valid; a pair that no repaired combination keeps is impossible.
"""

import itertools
import random


def covering(factors, repair, seed=0, tries=30):
    """(combinations, pairs covered): ``factors`` maps a name to its values; a combination maps each name to one."""
    rng = random.Random(seed)
    names = list(factors)
    wanted = {((a, x), (b, y)) for a, b in itertools.combinations(names, 2) for x in factors[a] for y in factors[b]}
    combinations, covered = [], set()
    while wanted:
        pair = min(wanted, key=repr)
        candidates = []
        for _ in range(tries):
            drawn = {name: rng.choice(factors[name]) for name in names} | dict(pair)
            combination = repair(drawn, fixed=[name for name, _ in pair])
            if combination is not None:
                candidates.append(combination)
        if not candidates:
            wanted.discard(pair)  # impossible
            continue
        best = max(candidates, key=lambda candidate: len(pairs_of(candidate, names) & wanted))
        combinations.append(best)
        covered |= pairs_of(best, names)
        wanted -= covered
    return combinations, covered


def pairs_of(combination, names):
    return set(itertools.combinations([(name, combination[name]) for name in names], 2))
