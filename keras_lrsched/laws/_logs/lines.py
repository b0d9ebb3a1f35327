"""Lines of text as nanoGPT, llm.c and Megatron print them: `iter 100: loss 2.3, time 120ms, lr 6e-4`."""

import re

from keras_lrsched.laws._logs.log import RunLog

COUNTER = re.compile(r"(?:^|[\s\]])(iter|iteration|step|update|epoch)\b\s*[:=#]?\s*(\d+)(?:\s*/\s*\d+)?(.*)", re.IGNORECASE)
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|[-+]?inf(?:inity)?|nan"
PAIR = re.compile(rf"([a-z_][a-z_/]*(?: [a-z_/]+)*(?: \(\w+\))?)\s*[:= ]\s*({NUMBER})(?![\w.])", re.IGNORECASE)

LONGEST = 2000
"""Characters of a line that are looked at."""


def read(text) -> RunLog:
    """A row for each line that names an iteration, a step or an epoch and has numbers with names behind it."""
    rows = []
    for line in text.splitlines():
        found = COUNTER.search(line[:LONGEST])
        values = {_name(name): value for name, value in PAIR.findall(found[3])} if found else {}
        if found and values:
            counter = "epoch" if found[1].lower() == "epoch" else "step"
            rows.append({counter: found[2], **{name: value for name, value in values.items() if name != counter}})
    return RunLog([rows] if rows else [])


def _name(text):
    return re.sub(r"\s+", "_", text.strip().lower())
