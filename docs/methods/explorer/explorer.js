// The schedule explorer. Every number that it draws was computed by the package and is read from the files in data/, which
// docs/make_explorer_data.py writes; here it is only looked up, multiplied by the peak, and drawn.
"use strict";

const scheduleExplorer = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const COLORS = 8; // as many as explorer.css has
  const FIRST = ["cosine", "linear", "wsd"];
  const MARGIN = { top: 12, right: 16, bottom: 40, left: 64 };
  const folder = new URL("data/", document.currentScript.src);
  const root = document.getElementById("schedule-explorer");

  const shared = { steps: 0, peak: 2, warmup: 1, cursor: 0 }; // places in the grid, and of the cursor among the points
  const known = new Map(); // name -> what its file holds
  const chosen = []; // { name, color } and, when its file is there, { data, places: one number an option }
  let grid, parts;

  // The grid

  function start(given) {
    grid = given;
    shared.cursor = grid.points / 2;
    parts = build();
    FIRST.forEach(choose);
  }

  function choose(name) {
    const taken = chosen.map((each) => each.color);
    const color = [...Array(COLORS).keys()].find((number) => !taken.includes(number));
    chosen.push({ name, color });
    parts.boxes.get(name).checked = true;
    if (known.has(name)) return shown(name);
    const script = document.createElement("script");
    script.src = new URL(`${name}.js`, folder);
    script.onerror = () => (parts.message.textContent = `The file of ${name} is missing: make docs writes it.`);
    document.head.append(script);
  }

  function add(data) {
    known.set(data.name, data);
    shown(data.name);
  }

  function shown(name) {
    const each = chosen.find((one) => one.name === name);
    if (!each) return; // it was dropped before its file came
    each.data = known.get(name);
    each.places = each.data.options.map((option) => option.values.findIndex((value) => same(value, option.start)));
    changed();
  }

  function drop(name) {
    chosen.splice(chosen.findIndex((each) => each.name === name), 1);
    changed();
  }

  function ready() {
    return chosen.filter((each) => each.data);
  }

  function combination({ data, places }) {
    const digits = [...places, shared.warmup, shared.steps];
    const bases = [...data.options.map((option) => option.values.length), grid.warmups.length, grid.steps.length];
    return digits.reduce((number, digit, k) => number * bases[k] + digit, 0);
  }

  function values(each) {
    const curve = each.data.curves[each.data.curve_of[combination(each)]];
    return curve.map((value) => value * grid.peaks[shared.peak]);
  }

  function line(each) {
    return each.data.lines[combination(each) * grid.peaks.length + shared.peak];
  }

  function program(each) {
    const classes = [...new Set(line(each).match(/\b[A-Z]\w*(?=\()/g))].sort().join(", ");
    return `from keras_lrsched.schedules import ${classes}\n\nschedule = ${line(each)}\n`;
  }

  // The page

  function build() {
    const boxes = new Map();
    const list = element("fieldset", { className: "se-list" }, element("legend", {}, "Schedules"));
    for (const { name, title } of grid.schedules) {
      const box = element("input", { type: "checkbox", name });
      box.addEventListener("change", () => (box.checked ? choose(name) : drop(name)));
      boxes.set(name, box);
      list.append(element("label", { title }, box, ` ${name}`));
    }
    const run = element("fieldset", { className: "se-run" }, element("legend", {}, "The run"));
    for (const [key, label, items] of [
      ["steps", "updates", grid.steps.map((value) => value.toLocaleString("en"))],
      ["peak", "peak", grid.peaks.map(String)],
      ["warmup", "warmup", grid.warmups.map((value) => `${value * 100} %`)],
    ]) {
      run.append(slider(key, label, items, shared[key], (place) => ((shared[key] = place), changed())));
    }
    const log = element("input", { type: "checkbox", name: "logarithmic" });
    log.addEventListener("change", draw);
    run.append(element("label", { className: "se-log" }, log, " logarithmic"));

    const svg = node("svg", { role: "img" });
    svg.addEventListener("pointermove", follow);
    const cursor = element("input", { type: "range", name: "cursor", min: 0, max: grid.points, value: shared.cursor });
    cursor.setAttribute("aria-label", "step at which the values are read");
    cursor.addEventListener("input", () => ((shared.cursor = Number(cursor.value)), draw()));
    const step = element("output", { className: "se-step" });
    const message = element("p", { className: "se-message", role: "status" });
    const cards = element("div", { className: "se-cards" });
    const chart = element("div", { className: "se-chart" }, svg, element("label", { className: "se-cursor" }, step, cursor));
    root.replaceChildren(list, run, chart, message, cards);
    new ResizeObserver(draw).observe(svg);
    return { boxes, log, svg, cursor, step, message, cards };
  }

  function changed() {
    const full = chosen.length === COLORS;
    parts.boxes.forEach((box) => (box.disabled = full && !box.checked));
    parts.message.textContent = full ? `${COLORS} at a time: take one away to choose another.` : "";
    keepCards();
    draw();
  }

  function keepCards() {
    for (const card of [...parts.cards.children]) {
      if (!chosen.some((each) => each.card === card)) card.remove();
    }
    ready().forEach((each, k) => {
      each.card ??= card(each);
      if (parts.cards.children[k] !== each.card) parts.cards.insertBefore(each.card, parts.cards.children[k] ?? null);
      each.code.textContent = program(each);
    });
  }

  function card(each) {
    const { name, title, options } = each.data;
    const heading = element("h3", {}, element("i", { className: "se-key" }), ` ${name} `, element("small", {}, title));
    const controls = element("div", { className: "se-options" });
    options.forEach((option, k) => {
      const change = (place) => ((each.places[k] = place), changed());
      const control = option.values.every((value) => typeof value === "number") ? slider : menu;
      controls.append(control(option.name, option.name, option.values.map(word), each.places[k], change));
    });
    each.read = element("output", {});
    each.code = element("code", {});
    const copy = element("button", { type: "button", className: "md-button" }, "Copy");
    copy.addEventListener("click", () => copied(each, copy));
    const article = element("article", { className: `se-card se-color-${each.color}` });
    article.setAttribute("aria-label", name);
    article.dataset.schedule = name;
    article.append(heading, each.read, controls, element("pre", {}, each.code), copy);
    return article;
  }

  function slider(name, label, items, place, change) {
    const output = element("output", {}, items[place]);
    const input = element("input", { type: "range", name, min: 0, max: items.length - 1, value: place });
    input.setAttribute("aria-valuetext", items[place]);
    input.addEventListener("input", () => {
      output.textContent = items[input.value];
      input.setAttribute("aria-valuetext", items[input.value]);
      change(Number(input.value));
    });
    return element("label", {}, element("span", {}, label), input, output);
  }

  function menu(name, label, items, place, change) {
    const select = element("select", { name }, ...items.map((item) => element("option", {}, item)));
    select.selectedIndex = place;
    select.addEventListener("change", () => change(select.selectedIndex));
    return element("label", {}, element("span", {}, label), select);
  }

  async function copied(each, button) {
    try {
      await navigator.clipboard.writeText(program(each));
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(each.code);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  }

  // The chart

  function draw() {
    const width = parts.svg.clientWidth;
    const height = parts.svg.clientHeight;
    if (!width) return;
    const curves = ready().map((each) => ({ each, numbers: values(each) }));
    const total = grid.steps[shared.steps];
    const axis = parts.log.checked ? logarithmicAxis(curves) : linearAxis(curves);
    const across = (place) => MARGIN.left + (place / grid.points) * (width - MARGIN.left - MARGIN.right);
    const up = (value) => height - MARGIN.bottom - axis.part(value) * (height - MARGIN.top - MARGIN.bottom);

    parts.svg.replaceChildren();
    parts.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    parts.svg.setAttribute("aria-label", `Learning rate over ${total} updates: ${curves.map(({ each }) => each.name).join(", ")}`);
    for (const value of axis.ticks) {
      mark("line", { class: "se-grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: up(value), y2: up(value) });
      mark("text", { class: "se-y", x: MARGIN.left - 8, y: up(value) + 4 }, short(value));
    }
    for (let k = 0; k <= 4; k++) {
      const label = ((total * k) / 4).toLocaleString("en");
      mark("text", { class: "se-x", x: across((grid.points * k) / 4), y: height - MARGIN.bottom + 20 }, label);
    }
    mark("text", { class: "se-x", x: (MARGIN.left + width - MARGIN.right) / 2, y: height - 4 }, "update");
    const here = across(shared.cursor);
    mark("line", { class: "se-here", x1: here, x2: here, y1: MARGIN.top, y2: height - MARGIN.bottom });
    for (const { each, numbers } of curves) {
      const points = numbers.map((value, place) => `${across(place).toFixed(2)},${up(value).toFixed(2)}`);
      mark("path", { class: `se-curve se-color-${each.color}`, d: `M${points.join("L")}`, "data-schedule": each.name });
      mark("circle", { class: `se-dot se-color-${each.color}`, cx: here, cy: up(numbers[shared.cursor]), r: 4 });
      each.read.textContent = short(numbers[shared.cursor]);
    }
    parts.step.textContent = `step ${((shared.cursor * total) / grid.points).toLocaleString("en")}`;
    parts.cursor.value = shared.cursor;
  }

  function linearAxis(curves) {
    const largest = Math.max(1e-12, ...curves.flatMap(({ numbers }) => numbers));
    const unit = 10 ** Math.floor(Math.log10(largest));
    const gap = [0.2, 0.25, 0.5, 1, 2].find((part) => largest / (part * unit) <= 5.01) * unit;
    const ticks = [...Array(Math.floor(largest / gap + 1e-6) + 1).keys()].map((k) => k * gap);
    return { ticks, part: (value) => value / (1.04 * largest) };
  }

  function logarithmicAxis(curves) {
    const largest = Math.max(1e-12, ...curves.flatMap(({ numbers }) => numbers));
    const top = Math.ceil(Math.log10(largest) - 1e-9);
    const decades = 4; // what is lower, zero too, lies on the lowest line
    const ticks = [...Array(decades + 1).keys()].map((k) => 10 ** (top - k));
    return { ticks, part: (value) => Math.max(0, (Math.log10(value) - top) / decades + 1) };
  }

  function follow(event) {
    const width = parts.svg.clientWidth - MARGIN.left - MARGIN.right;
    const part = (event.clientX - parts.svg.getBoundingClientRect().left - MARGIN.left) / width;
    shared.cursor = Math.round(Math.min(1, Math.max(0, part)) * grid.points);
    draw();
  }

  // Small things

  function mark(name, attributes, text = "") {
    const made = node(name, attributes);
    made.textContent = text;
    parts.svg.append(made);
  }

  function node(name, attributes) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  function element(name, properties, ...children) {
    const { role, ...others } = properties;
    const made = Object.assign(document.createElement(name), others);
    if (role) made.setAttribute("role", role);
    made.append(...children);
    return made;
  }

  function word(value) {
    if (value === null) return "None";
    if (typeof value === "boolean") return value ? "True" : "False";
    return Array.isArray(value) ? value.join(", ") : typeof value === "number" ? short(value) : value;
  }

  function short(value) {
    return String(Number(value.toPrecision(4)));
  }

  function same(a, b) {
    return JSON.stringify(a) === JSON.stringify(b);
  }

  return { start, add };
})();

document.head.append(Object.assign(document.createElement("script"), { src: new URL("data/grid.js", document.currentScript.src) }));
