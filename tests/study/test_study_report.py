"""The report of a study holds what its results are, in each of its forms, whatever labels users choose."""

import base64
import hashlib
import html.parser
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from keras_lrsched.study import _report
from keras_lrsched.study._report import _data, _files, _html, _markdown, _mlflow, _style, _tensorboard
from keras_lrsched.study.results import Results
from keras_lrsched.study.trial import Outcome, Trial
from tests.nightly import nightly

HOSTILE = "</script><img src=x onerror=alert(1)>|*my* `one`$x_1^2$"
RATES = (0.001, 0.002, 0.004)
ENDS = {"cosine": 0.25, HOSTILE: 0.5}
BUDGET = 20


def outcome(optimizer, schedule, rate, seed, budget=BUDGET):
    """Made-up curves: the best peak is 0.002; a seed adds a thousandth, muon 0.001 + 0.001 for each seed."""
    end = ENDS[schedule] + 0.1 * abs(np.log2(rate / 0.002)) + 0.001 * seed + (0.001 + 0.001 * seed) * (optimizer == "muon")
    trial, steps = Trial(optimizer, schedule, rate, budget, seed), np.arange(1, budget + 1)
    evaluated_at = np.array([budget // 2, budget])
    values = np.array([1.0, end])
    evaluations = {"val_loss": values, "val_accuracy": 1 - values / 2}
    return Outcome(trial, "finished", 2.0 / steps, rate * steps[::-1] / budget, evaluated_at, evaluations, seconds=0.5)


def diverged(run):
    loss = np.array([2.0, np.nan])
    return Outcome(run.trial, "diverged", loss, np.full(2, 0.1), np.array([], int), {}, seconds=0.1)


def failed(run, error="ValueError: <b>shape</b>"):
    return Outcome(run.trial, "failed", np.array([]), np.array([]), np.array([], int), {}, seconds=0.1, error=error)


def runs(optimizers=("adamw", "muon"), seeds=3):
    made = [outcome(o, s, r, seed) for o in optimizers for s in ENDS for r in RATES for seed in range(seeds)]
    made += [outcome(o, s, 0.008, 0, budget=4) for o in optimizers for s in ENDS]
    made[-1], made[-2] = diverged(made[-1]), failed(made[-2])
    return made


@pytest.fixture(scope="module")
def results():
    return Results(runs(), settings={"budget": BUDGET, "seeds": 3, "model": "<i>net</i>"})


@pytest.fixture(scope="module")
def report(results):
    return _data.Report(results, "Study <1>")


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory):
    return _report.write(results, tmp_path_factory.mktemp("report"), title="Study <1>")


def pair_of(report, label):
    (index,) = (i for i, row in enumerate(report.table.rows) if row.pair == label)
    return index


def test_files(folder):
    names = {path.name for path in folder.iterdir()}
    csv = {"table.csv", "trials.csv", "evaluations.csv", "steps.csv"}
    assert names == csv | {"report.md", "report.html", "study.png", "verdicts.png", "tensorboard"}
    for name in ("study.png", "verdicts.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_answer_comes_first(folder):
    lines = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Study &lt;1&gt;"
    assert lines[2].startswith("adamw, cosine with a peak of 0.002 has the lowest val\\_loss: 0.2510 ± 0.0010. ")
    assert lines[2].endswith("Not distinguishable from it: muon, cosine.")
    assert lines[4].startswith(
        "Tuned peaks, 10 trials for each pair; 4 pairs of optimizer and schedule, 20 optimizer steps,"
    )
    assert lines[4].endswith(", 3 seeds; 40 runs in all.")
    assert lines[6] == "> 2 of 40 runs diverged or failed: they count as infinitely bad."
    assert "![study](study.png)" in lines


def test_markdown_table(folder):
    text = (folder / "report.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows[:6]} == {13}  # the bar in a label ends no cell
    assert "<img" not in text
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;\\|\\*my\\* \\`one\\`$x\\_1^2$" in text
    assert "| ValueError: &lt;b&gt;shape&lt;/b&gt; | 1 | 0.008 |" in text


def test_an_untuned_comparison_is_labeled(results):
    untuned = _data.Report(Results(results.outcomes, tuned=False, settings=results.settings), "Study")
    assert untuned.conditions.startswith("Untuned common grid of 4 peaks, 0.001 to 0.008")
    assert untuned.warnings[0].startswith("The peaks were not tuned")
    assert "The peaks were not tuned" in _html.page(untuned)
    assert "The peaks were not tuned" in _markdown.markdown(untuned)


def test_where_each_other_is_worse():
    made = [outcome("adamw", schedule, 0.002, seed) for schedule in ENDS for seed in range(3)]
    made = [run if run.trial.schedule == "cosine" or run.trial.seed else diverged(run) for run in made]
    assert _data.Report(Results(made), "").answer.endswith("Each of the others is worse.")


@pytest.mark.parametrize("change", [diverged, failed])
def test_nothing_finished(change):
    report = _data.Report(Results([change(run) for run in runs()], settings={"seeds": 3}), "Study")
    assert report.answer == "No setting has finished with each of 3 seeds."
    assert "best" not in re.findall(r'<tr class="(\w+)"', _html.page(report))
    assert "No setting" in _markdown.markdown(report)
    json.dumps(report.payload(), allow_nan=False)


def test_one_run(tmp_path):
    written = _report.write(Results([outcome("adamw", "cosine", 0.002, 0)]), tmp_path, parts=["html", "markdown"])
    text = (written / "report.md").read_text(encoding="utf-8")
    assert "adamw, cosine with a peak of 0.002 has the lowest val\\_loss: 0.25." in text
    assert "> There is one seed" in text
    assert 'id="differences"' not in (written / "report.html").read_text(encoding="utf-8")


class Tags(html.parser.HTMLParser):
    """The tags of a page, their attributes, and the text of scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and data.strip():
            self.scripts.append(data)


@pytest.fixture(scope="module")
def tags(folder):
    return Tags((folder / "report.html").read_text(encoding="utf-8"))


def test_labels_are_text(tags, folder):
    found = [tag for tag, _ in tags.tags]
    assert found.count("script") == 2
    assert not {"img", "i", "b"} & set(found)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<title>Study &lt;1&gt;</title>" in text
    assert "&lt;i&gt;net&lt;/i&gt;" in text


def test_the_page_requests_nothing(tags):
    for tag, attributes in tags.tags:
        assert attributes.get("href", "data:,") == "data:,"
        assert not {"src", "srcset", "action"} & set(attributes), tag
    data, script = tags.scripts
    assert not re.findall(r"https?://(?!www.w3.org/2000/svg)|fetch\(|import\(|innerHTML", data + script)


def test_only_its_own_script_is_allowed(tags):
    (policy,) = (each["content"] for _, each in tags.tags if each.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(tags.scripts[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_data_of_the_page(tags, report):
    data = json.loads(tags.scripts[0])
    assert data == report.payload()
    assert [pair["label"] for pair in data["pairs"]][:2] == ["adamw, cosine", "muon, cosine"]
    assert data["pairs"][0]["peak"] == 0.002
    best = {rate["rate"]: rate for rate in data["rates"]["20"][0]}
    assert best[0.004] == {"rate": 0.004, "mean": 0.351, "values": [0.35, 0.351, 0.352]}
    assert [(rate["rate"], rate["mean"]) for rate in data["rates"]["4"][pair_of(report, ("muon", HOSTILE))]] == [
        (0.008, None)
    ]
    curve = data["curves"]["val_loss"][0]
    assert curve == {"x": [10, 20], "mean": [1.0, 0.251], "low": [1.0, 0.25], "high": [1.0, 0.252]}
    assert data["curves"]["learning_rate"][0]["mean"][0] == 0.002
    np.testing.assert_allclose(data["differences"][1]["values"], [0.001, 0.002, 0.003], rtol=1e-5)
    assert data["differences"][1]["mean"] == pytest.approx(0.002)
    assert data["differences"][1]["low"] < 0 < data["differences"][1]["high"]
    assert data["differences"][1]["verdict"] == "not distinguishable"
    assert data["profile"]["shares"][:2] == [[1.0] * 100, [1.0] * 100]
    assert data["profile"]["shares"][2] == [0.0] * 100


def test_training_loss_is_smoothed_and_thinned():
    made = [outcome("adamw", "cosine", 0.002, seed, budget=1000) for seed in range(2)]
    curve = _data.Report(Results(made), "").payload()["curves"]["loss"][0]
    assert (len(curve["x"]), curve["x"][0], curve["x"][-1]) == (200, 1, 1000)
    assert curve["mean"][0] == 2.0
    weights = 0.98 ** np.arange(1000)[::-1]
    assert curve["mean"][-1] == pytest.approx(np.sum(weights * 2 / np.arange(1, 1001)) / weights.sum(), rel=1e-5)


def test_colors_and_dashes_tell_pairs_apart():
    def styles(optimizers, schedules):
        made = [Trial(f"o{o}", f"s{s}", 0.002, 2, 0) for o in range(optimizers) for s in range(schedules)]
        base = outcome("adamw", "cosine", 0.002, 0, budget=2)
        fields = (base.status, base.loss, base.learning_rate, base.evaluated_at, base.evaluations, base.seconds)
        pairs = _data.Report(Results([Outcome(trial, *fields) for trial in made]), "").payload()["pairs"]
        return {(pair["optimizer"], pair["schedule"]): (pair["color"], pair["dash"]) for pair in pairs}

    by_both = styles(3, 8)
    assert len(set(by_both.values())) == 24
    assert {style[0] for pair, style in by_both.items() if pair[1] == "s1"} == {1}
    assert len(set(styles(20, 1).values())) == 20
    assert len(set(styles(5, 6).values())) == 30


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return np.dot([0.2126, 0.7152, 0.0722], linear)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_contrast(theme):
    """WCAG 2: 4.5 for text, 3 for what is drawn."""
    block = re.findall(r":root \{(.*?)\}", _style.STYLE, re.DOTALL)[theme]
    colors = dict(re.findall(r"--(\w+): (#\w{6})", block))

    def contrast(one, other):
        bright, dark = sorted((luminance(colors[one]), luminance(colors[other])), reverse=True)
        return (bright + 0.05) / (dark + 0.05)

    for back in ("back", "card", "mark"):
        for text in ("text", "soft", "accent", "good", "bad"):
            assert contrast(text, back) >= 4.5, (text, back)
        for place in range(_data.COLORS):
            assert contrast(f"c{place}", back) >= 3, (place, back)


def test_a_second_report_replaces_the_first(results, tmp_path):
    parts = ["tensorboard", "html", "markdown"]
    first = _report.write(results, tmp_path / "a" / "b", parts=parts)
    before = sorted(first.rglob("*"))
    assert _report.write(results, first, parts=parts) == first
    assert sorted(first.rglob("*")) == before


def test_refusals(results, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"`parts` must be one of 'csv', .* Received: parts='pdf'"):
        _report.write(results, tmp_path / "a", parts=["pdf"])
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"The report's folder '.*file' cannot be written to: File exists"):
        _report.write(results, tmp_path / "file")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"'pictures' .* needs matplotlib: pip install 'keras-lrsched\[plot\]', or leave"):
        _report.write(results, tmp_path / "a", parts=["csv", "pictures"])
    with pytest.raises(ImportError, match=r"pip install 'keras-lrsched\[mlflow\]'"):
        _report.write(results, tmp_path / "a", parts=["html"], mlflow="anywhere")
    assert not (tmp_path / "a").exists()


def test_file_names_of_labels_are_distinct():
    names = _files.distinct_names(["Adam", "adam", "a/b", "a\\b", "../..", "", "é", "x" * 300, "x" * 301])
    assert len({name.lower() for name in names.values()}) == 9
    assert all(re.fullmatch(r"[\w.=+-]{1,70}", name, re.ASCII) and ".." not in name for name in names.values())


def hparams_of(run):
    from tensorboard.plugins.hparams import plugin_data_pb2

    contents = run.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    end = run.SummaryMetadata("_hparams_/session_end_info").plugin_data.content
    parsed = plugin_data_pb2.HParamsPluginData.FromString
    return parsed(contents).session_start_info, parsed(end).session_end_info


def test_tensorboard(folder, results):
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

    multiplexer = EventMultiplexer(tensor_size_guidance={"scalars": 0}).AddRunsFromDirectory(str(folder / "tensorboard"))
    multiplexer.Reload()
    paths = list(_tensorboard.folders(run.trial for run in results.outcomes))
    assert set(multiplexer.Runs()) == {".", *paths}
    by_trial = {run.trial: path for run, path in zip(results.outcomes, paths, strict=True)}
    run = multiplexer.GetAccumulator(by_trial[Trial("muon", HOSTILE, 0.002, BUDGET, 1)])
    last = run.Tensors("val_loss")[-1]
    assert (last.step, last.tensor_proto.float_val[0]) == (BUDGET, pytest.approx(0.503))
    assert [event.step for event in run.Tensors("loss")] == list(range(1, BUDGET + 1))
    start, end = hparams_of(run)
    assert start.hparams["schedule"].string_value == HOSTILE
    assert start.hparams["learning_rate"].number_value == 0.002
    assert end.status == api_pb2.STATUS_SUCCESS
    same = multiplexer.GetAccumulator(by_trial[Trial("muon", HOSTILE, 0.002, BUDGET, 2)])
    assert hparams_of(same)[0].group_name == start.group_name
    worse = multiplexer.GetAccumulator(by_trial[Trial("muon", HOSTILE, 0.008, 4, 0)])
    assert hparams_of(worse)[1].status == api_pb2.STATUS_FAILURE
    whole = multiplexer.GetAccumulator(".").SummaryMetadata("_hparams_/experiment").plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(whole).experiment
    assert {info.name for info in experiment.hparam_infos} == {"optimizer", "schedule", "learning_rate", "budget"}
    assert {info.name.tag for info in experiment.metric_infos} == {"val_loss", "val_accuracy"}


def test_mlflow_in_a_folder(tmp_path):
    """Each run once, whatever was logged before; in the environment that has MLflow."""
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow-skinny, of the extra `mlflow`")
    results = Results([*(outcome("adamw", "cosine", 0.002, seed) for seed in range(2)), *runs()[-2:]])
    uri = (tmp_path / "runs").as_uri()
    for _ in range(2):
        _report.write(results, tmp_path / "report", parts=["markdown"], mlflow=uri, title="study")
    assert _mlflow.log(results.outcomes, uri, "study", {"other": 1}) == 4  # another study of the same name
    with _mlflow._file_store_allowed(uri):
        client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name("study").experiment_id
        logged = client.search_runs([experiment])
        assert len(logged) == 8
        finished = [run for run in logged if run.data.params["seed"] == "1"]
        assert finished[0].data.params["learning_rate"] == "0.002"
        assert finished[0].data.metrics["val_loss"] == pytest.approx(0.251)
        history = client.get_metric_history(finished[0].info.run_id, "loss")
        assert [(point.step, point.value) for point in history][-1] == (BUDGET, pytest.approx(0.1))
        statuses = sorted((run.info.status, run.data.tags["status"]) for run in logged)
    assert statuses == sorted([("FINISHED", "finished")] * 4 + [("FAILED", "failed"), ("FAILED", "diverged")] * 2)


# In Chromium.


def opened(browser, folder: Path, **context):
    """The page; an error, a dialog or a request is a failure."""
    page = browser.new_context(**({"viewport": {"width": 1440, "height": 900}} | context)).new_page()
    wrong: list = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("dialog", lambda dialog: (wrong.append("dialog"), dialog.dismiss()))
    page.on("request", lambda request: wrong.extend([] if request.url.startswith(("file:", "data:")) else [request.url]))
    page.goto((folder / "report.html").as_uri())
    page.wait_for_selector("#rates path.curve", state="attached")
    return page, wrong


@pytest.fixture
def page(browser, folder):
    page, wrong = opened(browser, folder)
    yield page
    assert wrong == []
    page.context.close()


def values_drawn(page, figure, pair):
    """The values of a curve, by the numbers at the axis, which is linear."""
    path = page.locator(f"#{figure} g[data-pair='{pair}'] path.curve").get_attribute("d")
    heights = np.array([float(point.split(",")[1]) for point in path[1:].split("L")])
    labels = [float(text) for text in page.locator(f"#{figure} text.y").all_text_contents()]
    lines = [float(line.get_attribute("y1")) for line in page.locator(f"#{figure} line.grid").all()]
    slope, start = np.polyfit(lines, labels, 1)
    return slope * heights + start


@nightly
def test_curves_are_drawn_to_scale(page):
    page.uncheck("#rates input[name=logy]")
    np.testing.assert_allclose(values_drawn(page, "rates", 0), [0.351, 0.251, 0.351], atol=1e-3)
    page.uncheck("#curves input[name=logy]")
    np.testing.assert_allclose(values_drawn(page, "curves", 0), [1.0, 0.251], atol=2e-3)
    page.select_option("#curves select[name=metric]", "val_accuracy")
    np.testing.assert_allclose(values_drawn(page, "curves", 0), [0.5, 0.8745], atol=2e-3)
    page.select_option("#rates select[name=budget]", "4")
    assert page.locator("#rates path.cross").count() == 2


@nightly
def test_axes_are_logarithmic_on_request(page):
    before = page.locator("#rates g[data-pair='0'] path.curve").get_attribute("d")
    page.uncheck("#rates input[name=logx]")
    after = page.locator("#rates g[data-pair='0'] path.curve").get_attribute("d")
    xs = [[float(point.split(",")[0]) for point in path[1:].split("L")] for path in (before, after)]
    assert np.diff(xs[0])[0] == pytest.approx(np.diff(xs[0])[1], abs=0.1)  # 1, 2, 4 are evenly spaced
    assert np.diff(xs[1])[1] == pytest.approx(2 * np.diff(xs[1])[0], abs=0.1)
    assert "NaN" not in page.content()


@nightly
def test_values_are_read_by_keyboard(page):
    plot = page.locator("#rates .plot")
    page.locator("#rates input[name=logy]").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "plot"
    for key in ("Home", "ArrowRight"):
        page.keyboard.press(key)
    assert plot.get_attribute("aria-valuetext").startswith(
        "Peak 0.002, mean val_loss (number of runs): adamw, cosine 0.251 (3);"
    )
    assert page.locator("#rates .readout li").count() == 4
    page.keyboard.press("End")
    assert "Peak 0.004" in page.locator("#rates .readout").inner_text()
    page.focus("#differences .plot")
    page.keyboard.press("ArrowDown")
    assert "muon, cosine" in page.locator("#differences .readout").inner_text()
    assert "not distinguishable" in page.locator("#differences .readout").inner_text()


@nightly
def test_values_are_read_by_pointing(page):
    page.locator("#curves .plot").scroll_into_view_if_needed()
    box = page.locator("#curves .plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 100)
    assert "Step 20, mean (range) of val_loss" in page.locator("#curves .readout").inner_text()
    assert "0.251 (0.25\u20130.252)" in page.locator("#curves .readout li").first.inner_text()


@nightly
def test_choose(page):
    def drawn():
        return page.locator("#rates path.curve").count()

    assert drawn() == 4
    page.click("[data-do=none]")
    assert drawn() == 0
    page.locator("[data-choose='1']").focus()
    page.keyboard.press("Space")
    assert drawn() == 1
    page.select_option(".chooser select[name=schedule]", label=HOSTILE)
    assert page.locator(".pairs input:checked").count() == 2
    page.select_option(".chooser select[name=optimizer]", label="muon")
    assert drawn() == 1
    page.click("[data-do=all]")
    assert drawn() == 4
    page.hover(".pairs label >> nth=1")
    assert page.locator("#rates g.dim").count() == 3


@nightly
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_it_fits_the_window(browser, folder, width, scheme):
    page, wrong = opened(browser, folder, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
    for plot in page.locator(".plot svg").all():
        assert plot.bounding_box()["width"] <= width - 32
    assert not page.evaluate(CUT_TEXTS)
    assert wrong == []
    page.context.close()


CUT_TEXTS = """[...document.querySelectorAll(".plot text")].filter((text) => {
  const [one, all] = [text.getBoundingClientRect(), text.closest("svg").getBoundingClientRect()];
  return one.left < all.left - 1 || one.right > all.right + 1;
}).map((text) => text.textContent)"""


@nightly
def test_without_script_the_table_is_there(browser, folder):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto((folder / "report.html").as_uri())
    assert "adamw, cosine" in page.locator("table >> nth=0").inner_text()
    assert not page.locator("#explore").is_visible()
    page.context.close()
