"""The schedules of Luo et al. 2025 (arXiv:2503.12811): 24,000 updates, 2160 of warmup, from 3e-4 to 3e-5."""

import numpy as np

STEPS, WARMUP, PEAK, END = 24000, 2160, 3e-4, 3e-5
RAMP = np.linspace(0, PEAK, WARMUP)
AFTER = np.arange(STEPS - WARMUP)
DECAY = np.arange(STEPS - 20000) / (STEPS - 20000)

CONSTANT = np.concatenate([RAMP, np.full(len(AFTER), PEAK)])
COSINE = np.concatenate([RAMP, END + (PEAK - END) * 0.5 * (1 + np.cos(np.pi * AFTER / len(AFTER)))])
WSD = np.concatenate([CONSTANT[:20000], PEAK * (END / PEAK) ** DECAY])
WSDLD = np.concatenate([CONSTANT[:20000], PEAK + (END - PEAK) * DECAY])


def ramp_then(shape, steps, warmup=50, peak=1e-3):
    """A short run: linear warmup, then peak * shape(the part of the rest that is done)."""
    done = np.arange(steps - warmup) / (steps - warmup)
    return np.concatenate([peak * np.arange(warmup) / warmup, peak * shape(done)])


def constant(steps, **options):
    return ramp_then(np.ones_like, steps, **options)


def cosine(steps, **options):
    return ramp_then(lambda done: 0.55 + 0.45 * np.cos(np.pi * done), steps, **options)


def wsd(steps, **options):
    return ramp_then(lambda done: np.clip((1 - done) / 0.2, 0.01, 1), steps, **options)


def two_stage(steps, **options):
    return ramp_then(lambda done: np.where(done < 0.4, 1.0, 0.3), steps, **options)
