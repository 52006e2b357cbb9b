"use strict";
// Chooses among numbers that the page was made with, and formats them. It computes none.

const data = JSON.parse(document.getElementById("data").textContent);
const state = { ...data.start, step: "x", cell: null, momentum: data.running.start, channel: 0 };
let lang = document.documentElement.lang;

const at = (id) => document.getElementById(id);
const say = (key, values = {}) =>
  (data.words[lang][key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
const number = (value, digits = 2) => value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1");
const shade = (set) => data.palette[set % data.palette.length];

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "line", "polyline", "circle", "rect", "path", "text", "g"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Choices

const key = (mode) =>
  [state.input, state.layout, state.norm, state.norm === "group" ? state.groups : 1, mode].join("/");

function chosen() {
  const entry = data.choices[key(state.mode)];
  return entry && entry.same_as_training ? data.choices[key("training")] : entry;
}

function options(id, values, label, disabled = () => false) {
  const box = at(id);
  const focused = box.contains(document.activeElement) ? document.activeElement.value : null;
  box.replaceChildren(
    ...values.map((value) => {
      const input = make("input", { type: "radio", name: id, value });
      input.checked = String(state[id]) === String(value);
      input.disabled = disabled(value);
      input.addEventListener("change", () => choose(id, typeof state[id] === "number" ? Number(value) : value));
      return make("label", {}, input, make("span", {}, label(value)));
    })
  );
  if (focused !== null) box.querySelector(`input[value="${focused}"]`)?.focus();
}

function choose(name, value) {
  state[name] = value;
  if (name !== "step" && name !== "mode") state.cell = null;
  // layer and RMS norm of sequences are those of transformers, which have the channels last
  if (["norm", "input"].includes(name) && state.input === "sequences" && ["layer", "rms"].includes(state.norm)) state.layout = "last";
  if (!(`${state.input}/${state.layout}` in data.inputs)) state.layout = state.layout === "first" ? "last" : "first";
  show();
}

function showChoices() {
  const inputs = [...new Set(Object.keys(data.inputs).map((name) => name.split("/")[0]))];
  const offered = (layout) => data.inputs[`${state.input}/${layout}`];
  const described = (name) => data.inputs[`${name}/${state.layout}`] ?? Object.entries(data.inputs).find(([k]) => k.startsWith(name))[1];
  options("norm", data.norms, (name) => say(`${name} short`));
  options("input", inputs, (name) => `${say(`page ${name}`)} ${described(name).shape}`);
  options("layout", ["first", "last"], (layout) => {
    return offered(layout) ? `${say(`page ${layout}`)} ${offered(layout).axes}` : say(`page ${layout}`);
  }, (layout) => !offered(layout));
  at("groups-field").hidden = state.norm !== "group";
  options("groups", data.groups, String, (groups) => !data.choices[[state.input, state.layout, "group", groups, "training"].join("/")]);
  options("mode", ["training", "evaluation"], (mode) => say(`page ${mode}`));
  const scales = state.norm !== "rms";
  options("step", scales ? ["x", "deviation", "x_hat", "y"] : ["x", "x_hat", "y"], (step) => say(`page step ${step}`));
}

// One normalization

function showNorm() {
  const entry = chosen();
  const refused = !entry || entry.refused;
  at("what").textContent = refused ? say(state.norm) : `${say(state.norm)}: ${entry.layer}`;
  for (const id of ["slabs", "axes", "sets", "details"]) at(id).replaceChildren();
  at("view").textContent = "";
  at("step").closest("fieldset").hidden = Boolean(refused);
  document.querySelector(".stage").hidden = Boolean(refused);
  at("formula").replaceChildren();
  if (refused) {
    at("note").textContent = say("page refused", { reason: entry ? entry.refused : "" });
    return;
  }
  if (state.norm === "rms" && state.step === "deviation") state.step = "x_hat";
  showFormula(entry);
  at("note").textContent = note(entry);
  at("view").textContent = entry.running ? "" : say("view", { view: entry.view });
  showSlabs(entry);
  showAxes(entry);
  showSets(entry);
  showDetails(entry);
}

function note(entry) {
  const counts = { sets: entry.num_sets, count: entry.count, weight: entry.weight_shape };
  if (entry.running) return say(entry.is_own ? "page by own running" : "page by running");
  const said = say(state.norm === "rms" ? "counts rms" : "counts", counts);
  const same = state.mode === "evaluation" && data.choices[key("evaluation")]?.same_as_training;
  return [said, ...(same ? [say("page same")] : []), ...(entry.cut ? [say("cut")] : [])].join(" ");
}

function showFormula(entry) {
  const parts = {
    x: ["x"], deviation: ["x - mean"], x_hat: ["sqrt(var + eps)", "sqrt(mean(x^2) + eps)"], y: ["weight + bias", "weight"],
  };
  const part = parts[state.step].find((text) => entry.formula.includes(text));
  const start = state.step === "y" ? entry.formula.lastIndexOf(part) : entry.formula.indexOf(part);
  at("formula").append(
    entry.formula.slice(0, start), make("mark", {}, part), `${entry.formula.slice(start + part.length)}    eps=${entry.eps}`
  );
}

function showSlabs(entry) {
  const box = at("slabs");
  box.setAttribute("aria-label", say("page cells"));
  entry.sets.forEach((rows, slab) => {
    const grid = make("div", { class: "grid", style: `grid-template-columns: auto repeat(${rows[0].length}, auto)` });
    grid.append(make("span", {}), ...rows[0].map((_, column) => make("span", { class: "label" }, entry.columns[column])));
    rows.forEach((sets, row) => {
      grid.append(make("span", { class: "label row" }, entry.rows[row]));
      sets.forEach((set, column) => grid.append(cell(entry, [slab, row, column], set)));
    });
    const caption = entry.sets.length > 1 ? [make("figcaption", {}, `N = ${slab}`)] : [];
    box.append(make("figure", { class: "slab" }, ...caption, grid));
  });
  box.append(weights(entry));
  mark(entry);
}

function cell(entry, place, set) {
  const [slab, row, column] = place;
  const value = entry[state.step][slab][row][column];
  const letter = entry.statistics[set].letter;
  const where = entry.sets.length > 1 ? `N${slab} ` : "";
  const button = make("button", {
    type: "button", class: "cell", style: `background: ${shade(set)}`, "data-place": place.join(","), "data-set": set,
    "aria-label": `${where}${entry.rows[row]} ${entry.columns[column]}, ${say("set")} ${letter}, ${number(value)}`,
  }, make("b", {}, letter), number(value));
  button.tabIndex = -1;
  for (const event of ["mouseenter", "focus"]) button.addEventListener(event, () => point(place));
  button.addEventListener("mouseleave", () => point(focusedPlace()));
  return button;
}

function weights(entry) {
  const { numbers } = entry.parameter;
  const grid = make("div", { class: "grid", style: `grid-template-columns: repeat(${numbers[0].length}, auto)` });
  if (!entry.parameter.below) grid.append(...numbers[0].map(() => make("span", { class: "label" }, "\u00a0"))); // beside rows
  for (const index of numbers.flat()) {
    const bias = entry.bias === null ? [] : [make("br"), `b ${number(entry.bias[index])}`];
    grid.append(make("div", { class: "weight", "data-weight": index }, `w ${number(entry.weight[index])}`, ...bias));
  }
  const name = say(entry.bias === null ? "weight alone" : "parameters short");
  return make("figure", { class: "slab" }, make("figcaption", {}, `${name} ${entry.weight_shape}`), grid);
}

const focusedPlace = () => document.activeElement?.dataset?.place?.split(",").map(Number) ?? null;

function point(place) {
  state.cell = place;
  const entry = chosen();
  mark(entry);
  showDetails(entry);
}

function mark(entry) {
  const box = at("slabs");
  const cells = [...box.querySelectorAll(".cell")];
  const set = state.cell && entry.sets[state.cell[0]][state.cell[1]][state.cell[2]];
  box.classList.toggle("pointed", state.cell !== null);
  for (const one of cells) {
    const here = one.dataset.place === state.cell?.join(",");
    one.classList.toggle("other", state.cell !== null && Number(one.dataset.set) !== set);
    one.classList.toggle("here", here);
    one.tabIndex = here ? 0 : -1;
  }
  if (!cells.some((one) => one.tabIndex === 0) && cells.length) cells[0].tabIndex = 0;
  const used = state.cell && entry.weights[state.cell[0]][state.cell[1]][state.cell[2]];
  for (const one of box.querySelectorAll(".weight")) one.classList.toggle("used", Number(one.dataset.weight) === used);
}

at("slabs").addEventListener("keydown", (event) => {
  const place = focusedPlace();
  const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (event.key === "Escape") document.activeElement.blur(), point(null);
  if (!place || !move) return;
  event.preventDefault();
  const sets = chosen().sets;
  let [slab, row, column] = [place[0], place[1] + move[0], place[2] + move[1]];
  if (column < 0 || column >= sets[0][0].length) {
    slab += Math.sign(move[1]);
    column = column < 0 ? sets[0][0].length - 1 : 0;
  }
  at("slabs").querySelector(`[data-place="${[slab, row, column].join(",")}"]`)?.focus();
});

function showDetails(entry) {
  const box = at("details");
  box.replaceChildren();
  if (state.cell === null) {
    box.append(make("p", {}, say("page point")));
    return;
  }
  const [slab, row, column] = state.cell;
  const of = (name) => entry[name][slab][row][column];
  const seen = entry.statistics[of("sets")];
  const rms = state.norm === "rms";
  const where = `${entry.sets.length > 1 ? `N${slab} ` : ""}${entry.rows[row]} ${entry.columns[column]}`;
  const chip = make("span", { class: "chip", style: `background: ${shade(of("sets"))}` }, seen.letter);
  box.append(make("h3", {}, `${where} · ${say("set")} `, chip));
  const members = entry.sets.flat(2).map((set, index) => [set, entry.x.flat(2)[index]]).filter(([set]) => set === of("sets"));
  if (entry.running) box.append(make("p", {}, say("page running set")));
  else box.append(make("p", {}, say("page members", { count: entry.count }), " ", members.map(([, x]) => number(x)).join(", ")));
  const lines = rms
    ? [`mean(x^2) = ${number(seen.var, 4)}`]
    : [`mean = ${number(seen.mean, 4)}`, `var  = ${number(seen.var, 4)}`];
  lines.push(`x = ${number(of("x"), 4)}`);
  if (!rms) lines.push(`x - mean = ${number(of("deviation"), 4)}`);
  lines.push(`${rms ? "x" : "(x - mean)"} / sqrt(${number(seen.var, 4)} + eps)`, `  = ${number(of(rms ? "x" : "deviation"), 4)} / ${number(seen.std, 4)} = ${number(of("x_hat"), 4)}`);
  const weight = entry.weight[of("weights")];
  const bias = entry.bias === null ? "" : ` + ${number(entry.bias[of("weights")])}`;
  lines.push(`y = ${number(of("x_hat"), 4)} * ${number(weight)}${bias} = ${number(of("y"), 4)}`);
  for (const line of lines) box.append(make("p", { class: "formula" }, line));
}

function table(id, heads, rows, wordColumns = []) {
  const classOf = (column) => (wordColumns.includes(column) ? { class: "words" } : {});
  const head = make("tr", {}, ...heads.map((text, column) => make("th", { scope: "col", ...classOf(column) }, text)));
  const body = rows.map((row) => make("tr", {}, ...row.map((text, column) => make("td", classOf(column), text))));
  at(id).replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
}

function showAxes(entry) {
  const rms = state.norm === "rms";
  const heads = ["axis", "size", rms ? "mean square" : "statistics", rms ? "weight alone" : "parameters"].map((name) => say(name));
  const averaged = (mark) => say(mark.reduced ? (entry.running ? "page earlier" : "averaged") : "kept", { axis: mark.name });
  table("axes", heads, entry.marks.map((mark) => [
    mark.name, mark.size, averaged(mark), mark.affine ? say("varies", { axis: mark.name }) : say("shared"),
  ]), [2, 3]);
}

function showSets(entry) {
  const rms = state.norm === "rms";
  const names = rms ? ["mean square", "mean square after"] : ["mean", "var", "mean after", "var after"];
  const columns = rms ? ["var", "var_after"] : ["mean", "var", "mean_after", "var_after"];
  const rows = Object.entries(entry.statistics).map(([set, seen]) => [
    make("span", { class: "chip", style: `background: ${shade(Number(set))}` }, seen.letter),
    ...columns.map((name) => number(seen[name], 4)),
  ]);
  table("sets", [say("set"), ...names.map((name) => say(name))], rows);
}

// Running statistics

function showRunning() {
  const running = data.running;
  const seen = running.of[state.momentum];
  const channel = state.channel;
  const column = (rows) => rows.map((row) => row[channel]);
  at("momentum-value").textContent = state.momentum;
  const steps = running.batch_mean.length;
  at("left").textContent = say("left", { steps, left: `${number(seen.left * 100, 1)}%` });
  at("unbiased").textContent = say("unbiased note", { factor: number(running.factor, 4), count: running.count });
  at("charts").replaceChildren(
    chart(say("mean"), column(running.batch_mean), [[[0, ...column(seen.mean)], "stored"]]),
    chart(say("var"), column(running.batch_var), [[[1, ...column(seen.var)], "stored"], [[1, ...column(seen.var_biased)], "biased"]])
  );
  const heads = ["step", "batch mean", "running mean", "by torch", "batch var", "running var", "by torch", "if biased"];
  const columns = [running.batch_mean, seen.mean, seen.torch_mean, running.batch_var, seen.var, seen.torch_var, seen.var_biased];
  table("steps-table", heads.map((name) => say(name)), running.batch_mean.map((_, step) => [
    step + 1, ...columns.map((rows) => number(rows[step][channel], 4)),
  ]));
  const evaluated = ["x", "y", "torch_y", "y_biased"].map((name) => seen[name][channel]);
  table("evaluation-table", ["x", "y", "by torch", "if biased"].map((name) => say(name)), evaluated[0].map((_, index) =>
    evaluated.map((values) => number(values[index], 4))));
}

function chart(title, batch, lines) {
  const [width, height, left, bottom, top] = [420, 240, 44, 30, 28];
  const values = [...batch, ...lines.flatMap(([points]) => points)];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = (high - low || 1) * 0.08;
  const steps = batch.length;
  const x = (step) => left + (step / steps) * (width - left - 12);
  const y = (value) => height - bottom - ((value - low + room) / (high - low + 2 * room)) * (height - bottom - top);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  svg.append(make("text", { x: left, y: 16, class: "title" }, title));
  for (const value of [low, (low + high) / 2, high]) {
    svg.append(make("line", { x1: left, x2: width - 12, y1: y(value), y2: y(value), class: "axis" }));
    svg.append(make("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)));
  }
  for (let step = 0; step <= steps; step += 2) {
    svg.append(make("text", { x: x(step), y: height - 10, "text-anchor": "middle" }, String(step)));
  }
  batch.forEach((value, step) => svg.append(make("circle", { cx: x(step + 1), cy: y(value), r: 4, fill: "var(--batch)" })));
  for (const [points, name] of lines) {
    const dashed = name === "biased" ? { "stroke-dasharray": "6 4" } : {};
    const path = points.map((value, step) => `${x(step)},${y(value)}`).join(" ");
    svg.append(make("polyline", { points: path, fill: "none", stroke: `var(--${name})`, "stroke-width": 2.5, ...dashed }));
  }
  const shown = { batch: ["●", "of batch"], stored: ["━", "stored"], biased: ["╍", "stored biased"] };
  const keys = ["batch", ...lines.map(([, name]) => name)].map((name) =>
    make("span", {}, make("span", { style: `color: var(--${name})`, "aria-hidden": "true" }, `${shown[name][0]} `), say(shown[name][1])));
  return make("figure", { class: "slab" }, svg, make("figcaption", { class: "key" }, ...keys));
}

// The page

function show() {
  document.documentElement.lang = lang;
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = say(node.dataset.say);
  for (const input of document.querySelectorAll("#language input")) input.checked = input.value === lang;
  showChoices();
  showNorm();
  showRunning();
}

at("language").addEventListener("change", (event) => {
  lang = event.target.value;
  show();
});
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const setTheme = (theme) => document.documentElement.setAttribute("data-theme", theme);
setTheme(dark.matches ? "dark" : "light");
dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
at("theme").addEventListener("click", () =>
  setTheme(document.documentElement.getAttribute("data-theme") === "dark" ? "light" : "dark"));

const slider = at("momentum");
slider.max = data.running.momenta.length - 1;
slider.value = data.running.momenta.indexOf(state.momentum);
slider.addEventListener("input", () => {
  state.momentum = data.running.momenta[Number(slider.value)];
  showRunning();
});
for (let channel = 0; channel < data.running.channels; channel += 1) at("channel").append(make("option", { value: channel }, String(channel)));
at("channel").addEventListener("change", (event) => {
  state.channel = Number(event.target.value);
  showRunning();
});
show();
