"""1cycle, as PyTorch has it: values of torch 2.13 `OneCycleLR` with SGD in float64, printed to twelve digits.

Behind the last update PyTorch raises; ours stays.
"""

from keras_lrsched.schedules import OneCycle, OneCycleMomentum

from . import Case

TORCH = "torch 2.13 OneCycleLR"
SHORT = {"peak_learning_rate": 1.0, "total_steps": 100}

CASES = [
    Case(
        "OneCycle two phases",
        lambda: OneCycle(1.0, 100),
        {0: 0.04, 1: 0.0428137805659, 15: 0.545986676121, 28: 0.997186219434, 29: 1.0, 30: 0.999496535285}
        | {50: 0.793893450576, 60: 0.589280090286, 98: 0.000507464715476, 99: 4e-06, 100: 4e-06, 101: 4e-06},
        TORCH,
        printed={0: 0.04, 15: 0.545987, 29: 1, 30: 0.999497, 50: 0.793893, 60: 0.58928, 99: 4e-6},
        bad=(
            {**SHORT, "pct_start": 1.0},
            {**SHORT, "pct_start": 0.01},
            {**SHORT, "pct_start": 0.6, "three_phase": True},
            {**SHORT, "total_steps": 3},
            {**SHORT, "anneal": "exponential"},
            {**SHORT, "anneal": "zigzag"},
            {**SHORT, "three_phase": "no"},
            {**SHORT, "three_phase": None},
        ),
    ),
    Case(
        "OneCycle two phases linear",
        lambda: OneCycle(1.0, 100, anneal="linear"),
        {0: 0.04, 1: 0.0731034482759, 15: 0.536551724138, 28: 0.966896551724, 29: 1.0, 30: 0.985714342857}
        | {50: 0.7000012, 60: 0.557144628571, 98: 0.0142896571429, 99: 4e-06, 100: 4e-06},
        TORCH,
    ),
    Case(
        "OneCycle three phases linear",
        lambda: OneCycle(1.0, 100, anneal="linear", three_phase=True),
        {0: 0.04, 1: 0.0731034482759, 15: 0.536551724138, 28: 0.966896551724, 29: 1.0, 30: 0.966896551724}
        | {50: 0.304827586207, 57: 0.0731034482759, 58: 0.04, 59: 0.0390244878049, 60: 0.0380489756098}
        | {98: 0.000979512195122, 99: 4e-06, 100: 4e-06},
        TORCH,
        printed={30: 0.966897, 50: 0.304828, 59: 0.0390245, 60: 0.038049, 99: 4e-6},
    ),
    Case(
        "OneCycle three phases",
        lambda: OneCycle(1.0, 100, three_phase=True),
        {0: 0.04, 1: 0.0428137805659, 15: 0.545986676121, 28: 0.997186219434, 29: 1.0, 30: 0.997186219434}
        | {50: 0.209254583305, 57: 0.0428137805659, 58: 0.04, 59: 0.0399413218921, 60: 0.0397656319148}
        | {98: 6.26781079276e-05, 99: 4e-06, 100: 4e-06},
        TORCH,
    ),
    Case(
        "OneCycle peak between steps",  # 0.3 * 25 - 1 = 6.5: no update uses the peak
        lambda: OneCycle(1.0, 25),
        {0: 0.04, 1: 0.0949811076865, 6: 0.986052072365, 7: 0.997987155049, 8: 0.981981502422}
        | {23: 0.00803917355986, 24: 4e-06, 25: 4e-06},
        TORCH,
    ),
    Case(
        "OneCycle three phases, peak between steps",
        lambda: OneCycle(1.0, 25, div_factor=10, final_div_factor=100, anneal="linear", three_phase=True),
        {0: 0.1, 1: 0.238461538462, 6: 0.930769230769, 7: 0.930769230769, 12: 0.238461538462, 13: 0.1, 14: 0.091}
        | {23: 0.01, 24: 0.001, 25: 0.001},
        TORCH,
    ),
    Case(
        "OneCycleMomentum two phases",
        lambda: OneCycle(1.0, 100).momentum(),
        {0: 0.95, 1: 0.949706897858, 15: 0.897293054571, 28: 0.850293102142, 29: 0.85, 30: 0.850050346673}
        | {50: 0.870610737385, 60: 0.89107215526, 98: 0.949949653327, 99: 0.95, 100: 0.95},
        TORCH,
        printed={0: 0.95, 15: 0.897293, 29: 0.85, 30: 0.85005, 50: 0.870611, 60: 0.891072, 99: 0.95},
        bad=(
            {"total_steps": 3},
            {"total_steps": 100, "base_momentum": 1.5},
            {"total_steps": 100, "three_phase": "no"},
            {"total_steps": 100, "anneal": "zigzag"},
        ),
    ),
    Case(
        "OneCycleMomentum three phases linear",
        lambda: OneCycle(1.0, 100, anneal="linear", three_phase=True).momentum(),
        {0: 0.95, 1: 0.946551724138, 15: 0.898275862069, 28: 0.853448275862, 29: 0.85, 30: 0.853448275862}
        | {50: 0.922413793103, 57: 0.946551724138, 58: 0.95, 59: 0.95, 60: 0.95, 98: 0.95, 99: 0.95, 100: 0.95},
        TORCH,
        printed={30: 0.853448, 50: 0.922414, 59: 0.95, 60: 0.95, 99: 0.95},
    ),
    Case(
        "OneCycleMomentum peak between steps",
        lambda: OneCycleMomentum(25, base_momentum=0.85, max_momentum=0.95),
        {0: 0.95, 1: 0.944272801283, 6: 0.851452909129, 7: 0.8502012853, 8: 0.851801856965, 23: 0.94919647943}
        | {24: 0.95, 25: 0.95},
        TORCH,
    ),
]
