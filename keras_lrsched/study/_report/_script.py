"""The script of the HTML page: charts in SVG from the data that the page holds. No library, and no request."""

SCRIPT = r"""
"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "7 4", "2 3", "9 3 2 3"];
const MARGIN = { left: 58, right: 14, top: 10, bottom: 40 };
const HEIGHT = 300;
const shown = new Set(data.pairs.flatMap((pair, i) => (pair.shown ? [i] : [])));
const redraws = [];
let highlighted = null;

function svg(name, attributes, parent, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

function html(name, attributes, parent, text) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

const color = (pair) => `var(--c${data.pairs[pair].color})`;
const dash = (pair) => DASHES[data.pairs[pair].dash];

function swatch(pair, parent) {
  const node = svg("svg", { width: 30, height: 10, "aria-hidden": "true" }, parent);
  const style = `stroke:${color(pair)};stroke-width:3`;
  svg("line", { x1: 0, x2: 30, y1: 5, y2: 5, "stroke-dasharray": dash(pair), style }, node);
  return node;
}

function format(value, digits = 4) {
  if (value === null || !Number.isFinite(value)) return "\u2013";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    return `${Number(mantissa)}e${Number(exponent)}`;
  }
  return String(Number(value.toPrecision(digits)));
}

// Scales and their ticks.

function scale(low, high, from, to, logarithmic) {
  const f = logarithmic ? Math.log : (x) => x;
  const span = f(high) - f(low) || 1;
  return (x) => from + ((f(x) - f(low)) / span) * (to - from);
}

function linearTicks(low, high, wanted) {
  const raw = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((x) => x * power).find((x) => x >= raw * 0.999);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) ticks.push(k * step);
  return ticks;
}

function logTicks(low, high, wanted) {
  const decades = Math.log10(high / low);
  if (decades < 0.7) return linearTicks(low, high, wanted);
  const stride = Math.max(1, Math.ceil(decades / wanted));
  let best = null;
  for (const factors of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 5, 7]]) {
    const ticks = decadeTicks(low, high, factors, stride);
    if (best === null || ticks.length <= wanted) best = ticks;
  }
  return best;
}

function decadeTicks(low, high, factors, stride) {
  const ticks = [];
  for (let k = Math.floor(Math.log10(low)); k <= Math.log10(high); k++) {
    if (k % stride === 0) ticks.push(...factors.map((factor) => Number(`${factor}e${k}`)));
  }
  return ticks.filter((x) => x >= low * 0.999 && x <= high * 1.001);
}

function extent(values, logarithmic) {
  const finite = values.filter((x) => x !== null && Number.isFinite(x) && (!logarithmic || x > 0));
  if (!finite.length) return null;
  let low = Math.min(...finite), high = Math.max(...finite);
  if (low === high && logarithmic) return [low / 2, high * 2];
  if (low === high) return [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const room = logarithmic ? (high / low) ** 0.04 : (high - low) * 0.04;
  return logarithmic ? [low / room, high * room] : [low - room, high + room];
}

// Rows of marks above or below a chart: their distance, and the room for all.
function rows(count, pitch) {
  const distance = Math.min(pitch, 80 / Math.max(1, count));
  return [distance, count ? distance * count + 8 : 0];
}

const line = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(2)},${y.toFixed(2)}`).join("");

function axes(root, width, height, x, y, xRange, yRange, options) {
  const xTicks = (options.logX ? logTicks : linearTicks)(...xRange, width < 480 ? 4 : 7);
  const yTicks = (options.logY ? logTicks : linearTicks)(...yRange, 6);
  const bottom = height - MARGIN.bottom, right = width - MARGIN.right;
  for (const tick of yTicks) {
    svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(tick), y2: y(tick) }, root);
    svg("text", { class: "y", x: MARGIN.left - 6, y: y(tick) + 4, "text-anchor": "end" }, root, format(tick));
  }
  for (const tick of xTicks) {
    svg("line", { class: "axis", x1: x(tick), x2: x(tick), y1: bottom, y2: bottom + 4 }, root);
    const anchor = x(tick) > right - 12 ? "end" : "middle";
    svg("text", { class: "x", x: Math.min(x(tick), right), y: bottom + 17, "text-anchor": anchor }, root, format(tick));
  }
  svg("line", { class: "axis", x1: MARGIN.left, x2: right, y1: bottom, y2: bottom }, root);
  svg("text", { x: (MARGIN.left + right) / 2, y: height - 6, "text-anchor": "middle" }, root, options.xLabel);
}

// A chart: a figure with options, a plot that can be focused, and the values at the cursor.

class Chart {
  constructor(name) {
    this.figure = document.getElementById(name);
    this.plot = this.figure.querySelector(".plot");
    this.readout = this.figure.querySelector(".readout");
    this.at = null;
    for (const input of this.figure.querySelectorAll(".options input, .options select")) {
      input.addEventListener("change", () => { this.at = null; this.draw(); });
    }
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerdown", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => highlight(null));
    new ResizeObserver(() => this.draw()).observe(this.plot);
    redraws.push(() => this.draw());
  }

  checked(name) {
    const input = this.figure.querySelector(`input[name=${name}]`);
    return Boolean(input && input.checked && !input.disabled);
  }

  chosen(name) {
    const select = this.figure.querySelector(`select[name=${name}]`);
    return select ? select.value : null;
  }

  key(event) {
    const last = this.stops.length - 1;
    const now = this.at === null ? -1 : this.at;
    const moves = { ArrowRight: now + 1, ArrowUp: now + 1, ArrowLeft: now - 1, ArrowDown: now - 1, PageUp: now + 10,
      PageDown: now - 10, Home: 0, End: last };
    if (this.vertical) Object.assign(moves, { ArrowDown: now + 1, ArrowUp: now - 1, PageDown: now + 10, PageUp: now - 10 });
    if (!(event.key in moves) || last < 0) return;
    event.preventDefault();
    this.move(Math.max(0, Math.min(last, moves[event.key])));
  }

  point(event) {
    if (!this.stops.length) return;
    const box = this.plot.getBoundingClientRect();
    const at = this.vertical ? event.clientY - box.top : event.clientX - box.left;
    let nearest = 0;
    this.stops.forEach((stop, i) => {
      if (Math.abs(stop.at - at) < Math.abs(this.stops[nearest].at - at)) nearest = i;
    });
    this.move(nearest);
    highlight(this.under(event.clientX - box.left, event.clientY - box.top));
  }

  under(px, py) {
    let best = null, distance = 26;
    for (const spot of this.spots || []) {
      const far = Math.hypot(spot.x - px, spot.y - py);
      if (far < distance) [best, distance] = [spot.pair, far];
    }
    return best;
  }

  move(index) {
    this.at = index;
    this.describe();
  }

  describe() {
    this.readout.replaceChildren();
    this.plot.setAttribute("aria-valuemin", 0);
    this.plot.setAttribute("aria-valuemax", Math.max(0, this.stops.length - 1));
    if (this.mark) this.mark.replaceChildren();
    if (this.at === null || !this.stops.length) {
      const hint = "Point at the chart, or focus it and press the arrow keys, to read values.";
      html("span", { class: "soft" }, this.readout, hint);
      this.plot.setAttribute("aria-valuenow", 0);
      this.plot.setAttribute("aria-valuetext", "no value chosen");
      return;
    }
    this.at = Math.min(this.at, this.stops.length - 1);
    const stop = this.stops[this.at];
    html("span", {}, this.readout, stop.title);
    const list = html("ul", {}, this.readout);
    for (const entry of stop.entries) {
      const item = html("li", { title: data.pairs[entry.pair].label }, list);
      swatch(entry.pair, item);
      html("span", {}, item, entry.name || data.pairs[entry.pair].label);
      html("b", {}, item, entry.text);
    }
    const spoken = stop.entries.map((entry) => `${entry.name || data.pairs[entry.pair].label} ${entry.text}`);
    this.plot.setAttribute("aria-valuenow", this.at);
    this.plot.setAttribute("aria-valuetext", `${stop.title} ${spoken.join("; ")}`);
    if (this.mark) this.markAt(stop);
  }

  markAt(stop) {
    const across = { x1: stop.left, x2: stop.right, y1: stop.at, y2: stop.at };
    const upright = { x1: stop.at, x2: stop.at, y1: MARGIN.top, y2: this.bottom };
    svg("line", { class: "cursor", ...(this.vertical ? across : upright) }, this.mark);
    for (const entry of stop.entries) {
      if (entry.y === undefined) continue;
      svg("circle", { cx: stop.at, cy: entry.y, r: 4, style: `fill:${color(entry.pair)}` }, this.mark);
    }
  }

  clear(height) {
    const width = Math.max(240, this.plot.clientWidth);
    this.plot.replaceChildren();
    this.stops = [];
    this.spots = [];
    this.mark = null;
    const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, this.plot);
    return { root, width };
  }

  nothing(text) {
    this.clear(10);
    this.plot.replaceChildren();
    html("div", { class: "empty" }, this.plot, text);
    this.describe();
  }

  allowLogarithm(name, values) {
    const input = this.figure.querySelector(`input[name=${name}]`);
    input.disabled = values.some((x) => x !== null && x <= 0);
  }

  // Series are { pair, x, y, low, high, dots, crosses, ring, basin, stair }.
  lines(series, options) {
    series = series.filter((one) => one && shown.has(one.pair));
    if (!series.length) return this.nothing("Nothing chosen has values here.");
    const dots = (one) => (one.dots || []).map((dot) => dot[1]);
    const all = series.flatMap((one) => [...one.y, ...(one.low || []), ...(one.high || []), ...dots(one)]);
    if (this.figure.querySelector("input[name=logy]")) this.allowLogarithm("logy", all);
    if (this.figure.querySelector("input[name=logx]")) this.allowLogarithm("logx", series.flatMap((one) => one.x));
    options.logX = this.checked("logx");
    options.logY = this.checked("logy");
    const basins = series.filter((one) => one.basin);
    const [basinPitch, strip] = rows(basins.length, 7);
    const crossed = series.filter((one) => one.crosses && one.crosses.length);
    const [crossPitch, head] = rows(crossed.length, 9);
    const height = HEIGHT + strip + head;
    const { root, width } = this.clear(height);
    const xRange = extent(series.flatMap((one) => [...one.x, ...(one.basin || []), ...(one.crosses || [])]), options.logX);
    const yRange = options.yRange || extent(all, options.logY);
    if (!xRange || !yRange) return this.nothing("Nothing chosen has values here.");
    const x = scale(...xRange, MARGIN.left, width - MARGIN.right, options.logX);
    const floor = height - MARGIN.bottom;
    const y = scale(...yRange, floor - strip - 2, MARGIN.top + head, options.logY);
    this.bottom = floor;
    axes(root, width, height, x, y, xRange, yRange, options);
    const ok = (px, value) => value !== null && (!options.logY || value > 0) && (!options.logX || px > 0);
    for (const one of series) {
      const group = svg("g", { "data-pair": one.pair }, root);
      this.one(group, one, x, y, ok);
      this.crosses(group, one, x, MARGIN.top + crossPitch * crossed.indexOf(one));
    }
    basins.forEach((one, i) => {
      const at = floor - strip + 8 + basinPitch * i;
      const [x1, x2] = one.basin.map(x);
      const style = `stroke:${color(one.pair)};stroke-width:4`;
      const ends = { x1, x2: Math.max(x2, x1 + 3), y1: at, y2: at, "stroke-dasharray": dash(one.pair) };
      svg("line", { class: "basin", "data-pair": one.pair, style, ...ends }, root);
    });
    this.mark = svg("g", {}, root);
    this.values(series, x, y, ok, options);
    this.describe();
    dim();
  }

  one(group, one, x, y, ok) {
    const style = `stroke:${color(one.pair)}`;
    const points = one.x.flatMap((px, i) => (ok(px, one.y[i]) ? [[x(px), y(one.y[i])]] : []));
    if (one.low) {
      const inside = one.x.map((_, i) => i).filter((i) => ok(one.x[i], one.low[i]) && ok(one.x[i], one.high[i]));
      const edge = (values) => inside.map((i) => [x(one.x[i]), y(values[i])]);
      const area = [...edge(one.high), ...edge(one.low).reverse()];
      if (inside.length) svg("path", { class: "band", d: `${line(area)}Z`, style: `fill:${color(one.pair)}` }, group);
    }
    const path = one.stair ? points.flatMap((p, i) => (i ? [[p[0], points[i - 1][1]], p] : [p])) : points;
    if (points.length) {
      svg("path", { class: "curve", d: line(path), style, "stroke-dasharray": dash(one.pair) }, group);
    }
    for (const [px, py] of one.dots || []) {
      if (!ok(px, py)) continue;
      svg("circle", { cx: x(px), cy: y(py), r: 2.5, style: `fill:${color(one.pair)};fill-opacity:.55` }, group);
    }
    if (one.ring !== undefined) {
      const i = one.x.indexOf(one.ring);
      if (i >= 0 && ok(one.ring, one.y[i])) {
        const ring = `${style};fill:none;stroke-width:2`;
        svg("circle", { class: "ring", cx: x(one.ring), cy: y(one.y[i]), r: 6, style: ring }, group);
      }
    }
    for (const [px, py] of points) this.spots.push({ x: px, y: py, pair: one.pair });
  }

  crosses(group, one, x, top) {
    for (const px of one.crosses || []) {
      const d = `M${x(px) - 3.5},${top}l7,7m0,-7l-7,7`;
      svg("path", { class: "cross", d, style: `stroke:${color(one.pair)};stroke-width:2` }, group);
    }
  }

  values(series, x, y, ok, options) {
    const positions = [...new Set(series.flatMap((one) => [...one.x, ...(one.crosses || [])]))].sort((a, b) => a - b);
    const usable = positions.filter((px) => !options.logX || px > 0);
    const entries = (px) => entriesAt(series, px, y, ok, options);
    this.stops = usable.map((px) => ({ at: x(px), title: options.title(px), entries: entries(px) }));
  }

  draw() {}
}

function entriesAt(series, px, y, ok, options) {
  const entries = [];
  for (const one of series) {
    const i = options.nearest ? nearestBefore(one.x, px) : one.x.indexOf(px);
    if (i >= 0 && one.y[i] !== null) {
      const text = options.text(one, i);
      entries.push({ pair: one.pair, value: one.y[i], text, y: ok(px, one.y[i]) ? y(one.y[i]) : undefined });
    } else if (one.crosses && one.crosses.includes(px)) {
      entries.push({ pair: one.pair, value: options.descending ? -Infinity : Infinity, text: "did not finish" });
    }
  }
  const sign = options.descending ? -1 : 1;
  return entries.sort((a, b) => (a.value === b.value ? 0 : sign * (a.value < b.value ? -1 : 1)));
}

function nearestBefore(xs, px) {
  let found = -1;
  for (let i = 0; i < xs.length && xs[i] <= px; i++) found = i;
  return found;
}

function highlight(pair) {
  if (pair === highlighted) return;
  highlighted = pair;
  dim();
}

function dim() {
  for (const node of document.querySelectorAll("svg [data-pair]")) {
    node.classList.toggle("dim", highlighted !== null && Number(node.dataset.pair) !== highlighted);
  }
}

class Rates extends Chart {
  draw() {
    const budget = this.chosen("budget") || String(data.widest);
    const series = data.rates[budget].map((rates, pair) => rates.length && ({
      pair,
      x: rates.map((one) => one.rate),
      y: rates.map((one) => one.mean),
      dots: rates.flatMap((one) => one.values.map((value) => [one.rate, value])),
      crosses: rates.filter((one) => one.mean === null).map((one) => one.rate),
      ring: data.pairs[pair].peak,
      basin: Number(budget) === data.widest ? data.pairs[pair].basin : null,
      runs: rates.map((one) => one.values.length),
    }));
    this.lines(series, {
      xLabel: "peak learning rate", descending: data.mode === "max",
      title: (px) => `Peak ${format(px)}, mean ${data.metric} (number of runs):`,
      text: (one, i) => `${format(one.y[i])} (${one.runs[i]})`,
    });
  }
}

class Curves extends Chart {
  draw() {
    const name = this.chosen("metric");
    const series = data.curves[name].map((curve, pair) => curve && { pair, y: curve.mean, ...curve });
    this.lines(series, {
      xLabel: "optimizer step", nearest: true, descending: data.mode === "max" && name === data.metric,
      title: (px) => `Step ${px}, mean (range) of ${name}:`,
      text: (one, i) => `${format(one.y[i])} (${format(one.low[i], 3)}\u2013${format(one.high[i], 3)})`,
    });
  }
}

class Profile extends Chart {
  draw() {
    const series = data.profile.shares.map((y, pair) => ({ pair, x: data.profile.multiples, y, stair: true }));
    this.lines(series, {
      xLabel: "steps, relative to the fastest", nearest: true, descending: true, yRange: [-0.03, 1.03],
      title: (px) => `Within ${format(px, 3)} times the fastest, share of seeds (score):`,
      text: (one, i) => `${format(one.y[i], 3)} (${format(data.profile.scores[one.pair], 3)})`,
    });
  }
}

class Differences extends Chart {
  constructor(name) {
    super(name);
    this.vertical = true;
  }

  draw() {
    const rows = data.differences.filter((row) => shown.has(row.pair) && row.mean !== null);
    if (!rows.length) return this.nothing("Nothing chosen can be compared: choose others than the best.");
    const step = 40, top = 24;
    const height = top + step * rows.length + MARGIN.bottom;
    const { root, width } = this.clear(height);
    const range = extent([0, ...rows.flatMap((row) => [...row.values, row.low, row.high])], false);
    const x = scale(...range, 16, width - 20, false);
    const floor = height - MARGIN.bottom;
    for (const tick of linearTicks(...range, width < 480 ? 4 : 7)) {
      svg("line", { class: tick === 0 ? "axis" : "grid", x1: x(tick), x2: x(tick), y1: 4, y2: floor }, root);
      svg("text", { class: "x", x: x(tick), y: floor + 17, "text-anchor": "middle" }, root, format(tick));
    }
    const title = `difference of ${data.metric} from the best`;
    svg("text", { x: width / 2, y: height - 6, "text-anchor": "middle" }, root, title);
    this.mark = svg("g", {}, root);
    rows.forEach((row, i) => this.row(root, row, x, top + step * i, width));
    this.describe();
    dim();
  }

  row(root, row, x, at, width) {
    const group = svg("g", { "data-pair": row.pair }, root);
    const style = `stroke:${color(row.pair)}`;
    const label = data.pairs[row.pair].label;
    const room = Math.floor((width - 160) / 7);
    const name = label.length > room ? `${label.slice(0, room - 1)}\u2026` : label;
    svg("text", { class: "name", x: 16, y: at - 2 }, group, name);
    svg("text", { class: "verdict", x: width - 16, y: at - 2, "text-anchor": "end" }, group, row.verdict);
    const y = at + 12;
    if (row.low !== null && row.high !== null) {
      const bar = `${style};stroke-width:5;stroke-opacity:.4`;
      svg("line", { class: "interval", x1: x(row.low), x2: x(row.high), y1: y, y2: y, style: bar }, group);
    }
    for (const value of row.values) {
      if (value === null) continue;
      svg("circle", { cx: x(value), cy: y, r: 3, style: `fill:${color(row.pair)};fill-opacity:.75` }, group);
    }
    svg("line", { x1: x(row.mean), x2: x(row.mean), y1: y - 7, y2: y + 7, style: `${style};stroke-width:3` }, group);
    this.spots.push({ x: x(row.mean), y, pair: row.pair });
    const interval = row.low === null ? "" : ` [${format(row.low, 3)}, ${format(row.high, 3)}]`;
    const entries = [{ pair: row.pair, text: `${format(row.mean)}${interval}` }];
    this.stops.push({ at: y, left: 16, right: width - 20, title: `${row.verdict}, mean difference and interval:`, entries });
  }
}

// The chooser.

function chooser() {
  const list = document.querySelector(".pairs");
  data.pairs.forEach((pair, i) => {
    const label = html("label", {}, list);
    const box = html("input", { type: "checkbox", "data-choose": i }, label);
    box.addEventListener("change", () => { box.checked ? shown.add(i) : shown.delete(i); update(); });
    swatch(i, label);
    html("span", {}, label, pair.label);
    label.addEventListener("pointerenter", () => highlight(i));
    label.addEventListener("pointerleave", () => highlight(null));
    box.addEventListener("focus", () => { if (box.matches(":focus-visible")) highlight(i); });
    box.addEventListener("blur", () => highlight(null));
  });
  const selects = [...document.querySelectorAll(".chooser select")];
  for (const select of selects) {
    const names = [...new Set(data.pairs.map((pair) => pair[select.name]))];
    html("option", { value: "" }, select, "all");
    names.forEach((name, i) => html("option", { value: i }, select, name));
    select.addEventListener("change", () => {
      choose((pair) => selects.every((one) => !one.value || one.selectedOptions[0].textContent === pair[one.name]));
    });
  }
  const reset = (test) => () => { for (const select of selects) select.value = ""; choose(test); };
  document.querySelector("[data-do=all]").addEventListener("click", reset(() => true));
  document.querySelector("[data-do=none]").addEventListener("click", reset(() => false));
  document.querySelector("[data-do=best]").addEventListener("click", reset((pair) => pair.shown));
  document.querySelector("#explore").hidden = false;
  update();
}

function choose(test) {
  shown.clear();
  data.pairs.forEach((pair, i) => { if (test(pair)) shown.add(i); });
  update();
}

function update() {
  for (const box of document.querySelectorAll("[data-choose]")) box.checked = shown.has(Number(box.dataset.choose));
  for (const redraw of redraws) redraw();
}

new Rates("rates");
new Curves("curves");
if (document.getElementById("differences")) new Differences("differences");
if (document.getElementById("profile")) new Profile("profile");
chooser();
})();
"""
