"""Schedules of values beside the learning rate, and schedules in stages."""

import math

from keras_lrsched.schedules import (
    BatchSizeWarmup,
    CertifiedEpsilon,
    EfficientTrainStages,
    LinearDecay,
    MaskingRate,
    MultigridShapes,
    PiecewiseConstant,
    Product,
    SparsityRamp,
    SynchronizationPeriod,
    Warmup,
)

from . import Case, about, cosine

CONSTANTS = [
    Case(
        "PiecewiseConstant",
        lambda: PiecewiseConstant([2, 5, 2**33], [1, 0.25, 0, 3.0]),
        {0: 1, 1: 1, 2: 0.25, 3: 0.25, 4: 0.25, 5: 0, 6: 0, 2**24 + 1: 0},
        "form",
        bad=tuple(
            {"boundaries": boundaries, "levels": levels}
            for boundaries, levels in (
                *(([2], [1]), ([2], [1, 2, 3]), ([], [])),
                *(([0], [1, 2]), ([3, 2], [1, 2, 3]), ([2, 2], [1, 2, 3]), ([2.5], [1, 2]), (2, [1, 2]), ("2", [1, 2])),
                *(([2], [1, -1]), ([2], [1, math.nan]), ([2], [1, None]), ([2], 1), ([2], "ab"), ([2], [1, True])),
            )
        ),
    ),
    Case("PiecewiseConstant of one level", lambda: PiecewiseConstant([], [0.5]), {0: 0.5, 9: 0.5}, "form"),
    Case(
        "Product",
        lambda: LinearDecay(1.0, 4) * PiecewiseConstant([2], [1, 3]) * 0.5,
        {0: 0.5, 1: 0.375, 2: 0.75, 3: 0.375, 4: 0, 5: 0},
        "form",
    ),
    Case(
        "Product of three",
        lambda: Product([2, Warmup(1.0, 2), LinearDecay(1.0, 4)]),
        {0: 0, 1: 0.75, 2: 1, 3: 0.5, 4: 0, 5: 0},
        "form",
        bad=({"schedules": [1.0]}, {"schedules": 1.0}, {"schedules": [1.0, "linear"]}, {"schedules": [1.0, -1.0]}),
    ),
]

# Spec 18: CIFAR, from epoch 2 over 80 epochs of 100 updates; (epoch, batch) there is t = 100 (epoch - 1) + batch - 1
RADIUS = 8 / 255


def epsilon(t, e=RADIUS, i0=100, i1=8100, mid=0.25, beta=4.0):
    im = i0 + math.floor((i1 - i0) * mid)
    a = e / ((i1 - im) * beta * (im - i0) ** (beta - 1) + (im - i0) ** beta)
    if t <= i0:
        return 0.0
    if t < im:
        return a * (t - i0) ** beta
    bend = a * (im - i0) ** beta
    return e if t >= i1 else bend + (e - bend) * (t - im) / (i1 - im)


def at(*numbers):
    return {100 * (epoch - 1) + batch - 1: fraction * RADIUS for epoch, batch, fraction in numbers}


EPSILONS = [
    Case(
        "CertifiedEpsilon smooth",
        lambda: CertifiedEpsilon.from_epochs(RADIUS, 2, 80, 100),
        about(epsilon, 100, 1000, 2100, 4100, 8100),
        "spec 18 [off]",
        printed=at(
            *((1, 100, 0), (2, 1, 0), (11, 1, 0.00315433), (21, 100, 0.0767693), (22, 1, 0.0769231)),
            *((42, 1, 0.384615), (62, 1, 0.692308), (81, 100, 0.999846), (82, 1, 1)),
        ),
        bad=tuple(
            {"epsilon": 0.1, "start_step": 5, "ramp_steps": 10, **bad}
            for bad in ({"mode": "cubic"}, {"mode": None}, {"mid": 1.5}, {"beta": 0.5})
        ),
    ),
    Case(
        "CertifiedEpsilon linear",
        lambda: CertifiedEpsilon.from_epochs(RADIUS, 2, 80, 100, mode="linear"),
        about(lambda t: RADIUS * min(1, max(0, t - 100) / 8000), 100, 4100, 8100),
        "spec 18 [off]",
        printed=at((2, 1, 0), (42, 1, 0.5), (81, 100, 0.999875), (82, 1, 1)),
    ),
    Case(
        "CertifiedEpsilon odd",
        lambda: CertifiedEpsilon(0.3, 0, 7, mid=0.5, beta=2.5),
        about(lambda t: epsilon(t, 0.3, 0, 7, 0.5, 2.5), 3, 7),
        "form",
    ),
    Case(
        "CertifiedEpsilon all curve",
        lambda: CertifiedEpsilon(1.0, 2, 4, mid=1.0, beta=2.0),
        {0: 0, 2: 0, 3: 1 / 16, 4: 1 / 4, 5: 9 / 16, 6: 1, 7: 1},
        "form",
    ),
]

MASKING = [
    Case(
        "MaskingRate",
        lambda: MaskingRate(1000),
        about(lambda t: 0.3 - 0.15 * min(t, 1000) / 1000, 250, 500, 1000),
        "spec 17 [form]",
        printed={0: 0.3, 250: 0.2625, 500: 0.225, 750: 0.1875, 1000: 0.15},
        bad=({"total_steps": 10, "profile": "zigzag"}, {"total_steps": 10, "initial_rate": 1.5}),
    ),
    Case(
        "MaskingRate large model, cosine",
        lambda: MaskingRate(40, 0.4, 0.25, profile="cosine"),
        about(lambda t: 0.25 + 0.15 * cosine(min(t, 40) / 40), 20, 40),
        "form",
    ),
]


def sparsity(t, initial=0.0, final=0.8, begin=250, end=750, power=3.0, frequency=1):
    if begin < t < end:
        t -= (t - begin) % frequency
    y = min(1, max(0, (t - begin) / (end - begin)))
    return initial - (final - initial) * math.expm1(power * math.log1p(-y)) if y < 1 else final


SPARSITY = [
    Case(
        "SparsityRamp",
        lambda: SparsityRamp(0, 0.8, 250, 750),
        about(sparsity, 250, 500, 750),
        "spec 17 [form]",
        printed={250: 0, 375: 0.4625, 500: 0.7, 625: 0.7875, 750: 0.8},
        bad=tuple(
            {"initial_sparsity": 0.2, "final_sparsity": 0.8, "begin_step": 5, "end_step": 10, **bad}
            for bad in ({"final_sparsity": 0.2}, {"final_sparsity": 1.5}, {"begin_step": 10}, {"begin_step": 2.5})
        ),
    ),
    Case(
        "SparsityRamp every 100th step",  # 700 is the last in the ramp; the end is reached all the same
        lambda: SparsityRamp(0.1, 0.9, 0, 750, power=2, frequency=100),
        about(lambda t: sparsity(t, 0.1, 0.9, 0, 750, 2, 100), 100, 700, 750),
        "form",
    ),
    Case(
        "SparsityRamp long",
        lambda: SparsityRamp(0.0, 1.0, 10, 2**25 + 10, power=0.5),
        about(lambda t: sparsity(t, 0.0, 1.0, 10, 2**25 + 10, 0.5), 10, 2**24 + 10, 2**25 + 10),
        "form",
    ),
]

OLMO = {"batch_sizes": [1024, 2048, 4096], "boundaries": [40_055, 79_930]}

BATCHES = [
    Case(
        "BatchSizeWarmup",
        lambda: BatchSizeWarmup(**OLMO),
        {0: 1024, 40_054: 1024, 40_055: 2048, 40_056: 2048, 79_929: 2048, 79_930: 4096, 10**9: 4096},
        "spec 17",
        bad=tuple(
            {**OLMO, **bad}
            for bad in (
                *({"batch_sizes": [1024, 2048]}, {"batch_sizes": [1024, 512, 4096]}, {"batch_sizes": [0, 1, 2]}),
                *({"batch_sizes": 1024}, {"boundaries": [5, 5]}, {"boundaries": [5]}, {"boundaries": None}),
            )
        ),
    ),
    Case(
        "BatchSizeWarmup from tokens",  # 168 and 503 billion, of 4096 a sequence
        lambda: BatchSizeWarmup.from_tokens([1024, 2048, 4096], [168e9, 503e9], 4096),
        {0: 1024, 40_054: 1024, 40_055: 2048, 79_989: 2048, 79_990: 4096, 79_991: 4096},
        "form: ceil(168e9 / 4194304) = 40055, and (503e9 - 40055 * 4194304) / 8388608 = 39934.8",
    ),
    Case(
        "PiecewiseConstant for a batch size warmup",
        lambda: BatchSizeWarmup([1024, 2048, 4096], [3, 5]).learning_rate_factor(),
        {0: 1, 2: 1, 3: math.sqrt(2), 4: math.sqrt(2), 5: 2, 6: 2},
        "spec 17",
    ),
    Case(
        "Scale by a batch size warmup",
        lambda: (math.sqrt(2) * 4e-4) * BatchSizeWarmup([1024, 2048, 4096], [3, 5]).learning_rate_factor(),
        {0: 4e-4 * math.sqrt(2), 3: 8e-4, 5: 8e-4 * math.sqrt(2)},
        "spec 17",
        printed={0: 5.65685e-4, 3: 8e-4, 5: 1.13137e-3},
    ),
]

# 1 / 96^2 : 1 / 160^2 : 1 / 224^2 = 1225 : 441 : 225 (over 11289600), so two, four and four of them are 5114 parts.
STAGES = [
    Case(
        "EfficientTrainStages",
        lambda: EfficientTrainStages(5114),
        {0: 96, 2449: 96, 2450: 160, 2451: 160, 4213: 160, 4214: 224, 4215: 224, 5113: 224, 5114: 224, 5115: 224},
        "spec 17, official code",
        bad=(
            *({"total_steps": 9}, {"total_steps": 100, "sizes": []}, {"total_steps": 100, "sizes": 96}),
            *({"total_steps": 100, "sizes": [96, 0]}, {"total_steps": 100, "sizes": [96], "magnitudes": [1, 2]}),
            *({"total_steps": 100, "equal": "time"}, {"total_steps": 20, "magnitudes": "0123456789"}),
        ),
    ),
    Case(
        "EfficientTrainStages, the first",
        lambda: EfficientTrainStages(300, (160, 160, 160, 192, 224), (1, 3, 5, 7, 9), equal="steps"),
        {0: 160, 179: 160, 180: 192, 239: 192, 240: 224, 299: 224, 300: 224, 301: 224},
        "official code: ET_training.py",
    ),
    Case(
        "PiecewiseConstant of magnitudes",
        lambda: EfficientTrainStages(5114).magnitude(),
        {0: 0, 1224: 0, 1225: 1, 2449: 1, 2450: 2, 2891: 3, 4888: 8, 4889: 9, 5114: 9},
        "spec 17, official code",
    ),
    Case(
        "EfficientTrainStages for a full-size run",  # 200 epochs of 100 updates: 2000 * (2 * 5.4444 + 4 * 1.96 + 4)
        lambda: EfficientTrainStages.for_full_size_steps(20_000),
        {0: 96, 21_777: 96, 21_778: 160, 37_457: 160, 37_458: 224, 45_457: 224, 45_458: 224, 45_459: 224},
        "official code, but for the rounding to epochs",
    ),
]

# Spec 17: SlowFast, with 3200 updates an epoch. By hand: with the short cycle, the average batch factors are 32/3, 16/3,
# 14/3, 7/3, so an epoch has 300, 600, 685, 1371 updates.
SLOWFAST = {"frames": 32, "crop": 224, "milestones": [94, 154, 196], "epochs": 239, "steps_per_epoch": 3200}
FIRST = 73 * 300
SECOND = FIRST + 37 * 600
THIRD = SECOND + 32 * 685
FOURTH = THIRD + 16 * 1371
MULTIGRID = [
    Case(
        "MultigridShapes",
        lambda: MultigridShapes(**SLOWFAST),
        {0: 16, 1: 8, 2: 8, 3: 16, FIRST - 1: 8, FIRST: 8, FIRST + 1: 4, FIRST + 2: 4, FIRST + 3: 8}
        | {SECOND - 1: 4, SECOND: 8, SECOND + 1: 4, SECOND + 2: 2, THIRD - 1: (8, 4, 2)[(THIRD - 1) % 3]}
        | {THIRD: (4, 2, 1)[THIRD % 3], FOURTH - 1: (4, 2, 1)[(FOURTH - 1) % 3], FOURTH: (16, 8, 8)[FOURTH % 3]},
        "spec 17 [off]",
        bad=tuple(
            {**SLOWFAST, **bad}
            for bad in (
                *({"milestones": []}, {"milestones": [94, 94]}, {"milestones": [94, 239]}, {"milestones": 94}),
                *({"epochs": 196}, {"gamma": 1.5}, {"short_cycle": "yes"}, {"milestones": [1, 2, 3], "epochs": 5}),
            )
        ),
    ),
    Case(
        "PiecewiseConstant of multigrid",
        lambda: MultigridShapes(**SLOWFAST).learning_rate(0.5),
        {0: 4, FIRST - 1: 4, FIRST: 2, SECOND - 1: 2, SECOND: 1, THIRD: 0.5, FOURTH - 1: 0.5, FOURTH: 0.4, 10**8: 5e-4},
        "spec 17 [off]",
    ),
    Case(
        "MultigridShapes long cycle only",
        lambda: MultigridShapes(16, 128, [10], 15, 80, short_cycle=False),
        {0: 8, 109: 8, 110: 4, 209: 4, 210: 2, 329: 2, 330: 1, 568: 1, 569: 1, 570: 1, 571: 1},
        "form, by hand: shapes end at epochs 11, 16, 19, 20, fine-tuning at 22; 10, 20, 40, 80 updates an epoch",
    ),
]

QSR_RATES = (0.008, 0.004, 0.002, 0.001, 0.0005)
QSR = [
    Case(
        f"SynchronizationPeriod alpha={alpha}",
        lambda alpha=alpha: SynchronizationPeriod(PiecewiseConstant([1, 2, 3, 4], QSR_RATES), alpha),
        dict(enumerate(periods)),
        "spec 15",
        printed=dict(enumerate(periods)),
        bad=(
            {"learning_rate": "linear", "alpha": 0.1},
            {"learning_rate": -1.0, "alpha": 0.1},
            {"learning_rate": 1.0, "alpha": 0.1, "max_period": 0},
            {"learning_rate": 1.0, "alpha": 0.1, "total_steps": 2.5},
        ),
    )
    for alpha, periods in ((0.0175, (4, 19, 76, 306, 1225)), (0.0225, (7, 31, 126, 506, 2025)))
] + [
    Case(
        # The learning rate at the end of the warmup is 0.01, and a hundredth of that at 99 further updates.
        "SynchronizationPeriod behind a warmup, capped",
        lambda: SynchronizationPeriod(Warmup(LinearDecay(0.01, 100), 10), 0.025, warmup_steps=10, max_period=50),
        {0: 6, 9: 6, 10: 6, 35: 11, 60: 25, 76: 34, 77: 33, 109: 1, 110: 1, 111: 1},
        "spec 15",
    ),
    Case(
        "SynchronizationPeriod of a rate that reaches 0",
        lambda: SynchronizationPeriod(LinearDecay(0.1, 10), 0.1, max_period=30, total_steps=1000),
        {0: 4, 4: 4, 5: 4, 6: 6, 7: 11, 8: 25, 9: 30, 10: 30, 970: 30, 971: 29, 999: 1, 1000: 1, 1001: 1},
        "spec 15",
    ),
    Case(
        "SynchronizationPeriod switched off",
        lambda: SynchronizationPeriod(0.1, 0, base_period=8, power=1),
        {0: 8, 10**6: 8},
        "spec 15",
    ),
]

CASES = [*CONSTANTS, *EPSILONS, *MASKING, *SPARSITY, *BATCHES, *STAGES, *MULTIGRID, *QSR]
