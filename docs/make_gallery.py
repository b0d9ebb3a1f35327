"""The gallery: every schedule in docs/methods/gallery.png, and gallery.md beside it: formulas and references.

Run: make gallery
"""

import inspect
import re
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from keras_lrsched import schedules
from keras_lrsched._core import registry

STEPS, WARMUP, COLUMNS = 1000, 50, 6
FOLDER = Path(__file__).parent / "methods"

# What is not built from a budget is shown by an example.
EXAMPLES = {
    "batch_size_warmup": schedules.BatchSizeWarmup([1024, 2048, 4096], [200, 600]),
    "certified_epsilon": schedules.CertifiedEpsilon(8 / 255, start_step=50, ramp_steps=800),
    "efficient_train": schedules.EfficientTrainStages(STEPS),
    "masking_rate": schedules.MaskingRate(STEPS),
    "multigrid": schedules.MultigridShapes(32, 224, [94, 154, 196], 239, 4, short_cycle=False),
    "qsr": schedules.SynchronizationPeriod(
        schedules.ProfileDecay(0.0, 950, profile="cosine", warmup_target=0.008, warmup_steps=50),
        alpha=0.0175,
        total_steps=STEPS,
    ),
    "refined": schedules.RefinedSchedule(np.r_[np.linspace(5, 1, 250), np.ones(500), np.linspace(1, 3, 250)]),
    "sparsity_ramp": schedules.SparsityRamp(0.0, 0.8, 250, 750),
}


def drawn(entry):
    """The schedule that its panel shows, and over how many updates."""
    schedule = EXAMPLES.get(entry.name) or schedules.get(entry.name, 1.0, STEPS, warmup_steps=WARMUP)
    return schedule, schedule.total_steps if entry.name == "multigrid" else STEPS


def picture(entries):
    rows = -(-len(entries) // COLUMNS)
    figure = Figure(figsize=(3 * COLUMNS, 2.1 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS).flat
    for entry, panel in zip(entries, panels, strict=False):
        schedule, steps = drawn(entry)
        panel.plot(schedule.values(steps), color="C0" if entry.kind == "learning rate" else "C1")
        panel.set_title(entry.name, fontsize="medium")
        panel.set_ylim(bottom=0)
        panel.set_xticks([])
        panel.tick_params(labelsize="small")
        panel.spines[["top", "right"]].set_visible(False)
    for panel in list(panels):
        panel.axis("off")
    figure.supxlabel("optimizer step, from 0 to 1,000 (multigrid: to the end of its cycles)")
    figure.supylabel("blue: learning rate / peak; orange: the value of what the title names")
    return figure


def page(entries):
    yield "# Gallery of schedules\n"
    yield "Every schedule that `keras-lrsched list` names, over 1,000 updates with a warmup of 50 where it has one. Blue:"
    yield "learning rates, as a fraction of their peak. Orange: schedules of something else. Made by `make gallery`.\n"
    yield "![A panel for each schedule](gallery.png)\n"
    for entry in entries:
        sentence, _, rest = inspect.getdoc(entry.target).partition("\n\n")
        explanation = re.split(r"\n?(?:Args|Raises|Reference|Example):", rest)[0]
        reference = inspect.getdoc(entry.target).partition("\nReference:")[2].partition("\n\n")[0]
        yield f"## {entry.name}: `{entry.target.__name__}`\n"
        yield f"{sentence}\n\n{explanation}" if explanation else f"{sentence}\n"
        if reference or entry.paper:
            yield f"Reference: {' '.join(reference.split()) or entry.paper}\n"


def main():
    named = [entry for entry in registry.entries("schedules") if entry.name]
    entries = sorted(named, key=lambda entry: (entry.kind != "learning rate", entry.name))
    picture(entries).savefig(FOLDER / "gallery.png", dpi=80)
    (FOLDER / "gallery.md").write_text("\n".join(page(entries)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
