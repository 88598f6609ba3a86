"""The learning rate as a function of the step: warm-up, then one of four shapes.

Every shape rises linearly over the first ``warmup_steps``; step 0 already moves. After that, with
progress t from 0 (end of the warm-up) to 1 (last step) and f the final fraction:

    constant   1
    linear     1 − (1 − f) t
    cosine     f + (1 − f) (1 + cos πt) / 2                           Loshchilov and Hutter 2017
    wsd        1, then linear to f over the last ``decay_steps``      warm-up, stable, decay: Hu et al. 2024
"""

import math


def learning_rate(step, settings):
    """The learning rate of ``step`` (from 0) under ``settings`` (a ``Settings``)."""
    s = settings
    if step < s.warmup_steps:
        return s.learning_rate * (step + 1) / (s.warmup_steps + 1)
    remaining = max(s.max_steps - 1 - s.warmup_steps, 1)
    progress = min((step - s.warmup_steps) / remaining, 1.0)
    decay_share = min((s.decay_steps or max(s.max_steps // 5, 1)) / remaining, 1.0)
    return s.learning_rate * SCHEDULES[s.schedule](progress, s.final_fraction, decay_share)


def _constant(progress, final, decay_share):
    return 1.0


def _linear(progress, final, decay_share):
    return 1.0 - (1.0 - final) * progress


def _cosine(progress, final, decay_share):
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))


def _wsd(progress, final, decay_share):
    into_decay = max(progress - (1.0 - decay_share), 0.0) / decay_share
    return 1.0 - (1.0 - final) * into_decay


SCHEDULES = {"cosine": _cosine, "linear": _linear, "constant": _constant, "wsd": _wsd}
