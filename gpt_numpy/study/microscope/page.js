"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const stages = data.stages;
const order = stages.flatMap((stage) => stage.tensors); // forward: embedding first, loss last
const state = { stage: null, tensor: null, token: null };
const decoded = new Map();

const $ = (id) => document.getElementById(id);
const number = (x) => (x === 0 ? "0" : Math.abs(x) >= 1e-3 && Math.abs(x) < 1e5 ? x.toPrecision(4) : x.toExponential(2));

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// ---- colors ---------------------------------------------------------------------------------------------------

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function palette() {
  const [zero, pos, neg] = isDark()
    ? [[24, 27, 32], [255, 143, 102], [102, 176, 255]]
    : [[250, 249, 246], [178, 24, 43], [33, 102, 172]];
  const table = new Uint32Array(256);
  for (let code = -127; code <= 127; code++) {
    const end = code < 0 ? neg : pos;
    const [r, g, b] = zero.map((z, i) => Math.round(z + (end[i] - z) * Math.abs(code) / 127));
    table[code + 128] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return table;
}

function codes(picture) {
  if (!decoded.has(picture)) {
    decoded.set(picture, Int8Array.from(atob(picture.codes), (c) => c.charCodeAt(0)));
  }
  return decoded.get(picture);
}

function entry(picture, panel, row, column) {
  const [, rows, columns] = picture.size;
  const code = codes(picture)[(panel * rows + row) * columns + column];
  return Math.sign(code) * (code / 127) ** 2 * picture.peak;
}

function paint(canvas, picture, panel, colors) {
  const [, rows, columns] = picture.size;
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const all = codes(picture);
  for (let i = 0; i < rows * columns; i++) pixels[i] = colors[all[panel * rows * columns + i] + 128];
  context.putImageData(image, 0, 0);
}

function repaint() {
  const colors = palette();
  for (const canvas of document.querySelectorAll("canvas")) paint(canvas, canvas.picture, canvas.panel, colors);
}

// ---- one box ----------------------------------------------------------------------------------------------------

function box(name, colors) {
  const tensor = data.tensors[name];
  const about = data.boxes[tensor.box];
  const at = order.indexOf(name);
  const steps = make("div", { class: "steps" });
  if (at > 0) steps.append(make("a", { class: "button", href: "#" + order[at - 1] }, "◀ " + order[at - 1]));
  if (at < order.length - 1) steps.append(make("a", { class: "button", href: "#" + order[at + 1] }, order[at + 1] + " ▶"));
  return make(
    "article", { class: "box", id: "box-" + name, tabindex: "-1", "aria-labelledby": "name-" + name },
    make("div", { class: "top" },
      make("h3", { id: "name-" + name }, name),
      make("span", { class: "shape" }, tensor.shape.length ? tensor.shape.join(" × ") : "a number")),
    make("p", { class: "formula" }, about.formula),
    make("div", { class: "pair" }, figure(name, "value", colors), figure(name, "grad", colors)),
    make("div", { class: "more" }, explanation(about), steps));
}

function explanation(about) {
  const place = (s) => `${s.file}:${s.line}   ${s.code}`;
  return make("details", {},
    make("summary", {}, `gradient: ${about.gradient}`),
    make("pre", {}, `forward    ${place(about.forward)}\nbackward   ${place(about.backward)}`),
    make("p", { class: "symbols" }, about.symbols), make("pre", {}, about.derivation));
}

function figure(name, side, colors) {
  const tensor = data.tensors[name];
  const picture = tensor[side];
  const caption = make("figcaption", {}, make("b", {}, side === "value" ? "value" : "gradient"),
    `  norm ${number(picture.norm)}, rms ${number(picture.rms)}, ${number(picture.min)} to ${number(picture.max)}` +
    (tensor.pooled > 1 ? `, ${tensor.pooled} channels a column` : ""),
    make("span", { class: "scale" }, make("span", {}, number(-picture.peak)), make("i"), make("span", {}, number(picture.peak))));
  if (side === "grad" && name.endsWith("attn.weights")) {
    caption.append(make("span", { class: "note" },
      "Beyond the diagonal are keys that the query does not see: there P = 0, and softmax's backward multiplies by P, so nothing passes."));
  }
  const panels = make("div", { class: "panels" + (tensor.heads ? " heads" : "") });
  for (let panel = 0; panel < picture.size[0]; panel++) panels.append(heatMap(name, side, panel, colors));
  return make("figure", {}, caption, panels);
}

function heatMap(name, side, panel, colors) {
  const tensor = data.tensors[name];
  const [, rows, columns] = tensor[side].size;
  const head = tensor.heads ? `head ${panel}` : "";
  const canvas = make("canvas", {
    tabindex: "0", role: "img",
    "aria-label": `${name}, ${side === "value" ? "value" : "gradient"} ${head}: ${rows} by ${columns}. Arrow keys read entries.`,
  });
  canvas.picture = tensor[side];
  canvas.panel = panel;
  paint(canvas, canvas.picture, panel, colors);
  const byToken = rows === data.tokens.length;
  canvas.style.height = `${Math.min(Math.max(rows * (tensor.columns === "key" ? 0 : 5), 24), 200)}px`;
  if (tensor.columns === "key") canvas.style.height = "auto";
  const frame = make("div", { class: "frame" + (byToken ? " rows" : "") + (columns === 1 ? " narrow" : "") }, canvas);
  const cursor = { row: 0, column: 0, mark: make("div", { class: "cursor", hidden: "" }) };
  frame.append(cursor.mark);
  canvas.addEventListener("mousemove", (event) => {
    const place = canvas.getBoundingClientRect();
    cursor.row = Math.min(rows - 1, Math.max(0, Math.floor((event.clientY - place.top) / place.height * rows)));
    cursor.column = Math.min(columns - 1, Math.max(0, Math.floor((event.clientX - place.left) / place.width * columns)));
    inspect(name, panel, cursor, rows, columns);
  });
  canvas.addEventListener("mouseleave", () => (cursor.mark.hidden = document.activeElement !== canvas));
  canvas.addEventListener("click", () => {
    if (byToken) chooseToken(cursor.row);
    enlarge(name, side, panel);
  });
  canvas.addEventListener("focus", () => inspect(name, panel, cursor, rows, columns));
  canvas.addEventListener("blur", () => (cursor.mark.hidden = true));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Enter" && byToken) chooseToken(cursor.row);
    if (!step) return;
    event.preventDefault();
    cursor.row = Math.min(rows - 1, Math.max(0, cursor.row + step[0]));
    cursor.column = Math.min(columns - 1, Math.max(0, cursor.column + step[1]));
    inspect(name, panel, cursor, rows, columns);
  });
  return make("div", { class: "panel" }, ...(head ? [make("small", {}, head)] : []), frame);
}

// One picture as large as the window, with the tokens along its axes.
function enlarge(name, side, panel) {
  const tensor = data.tensors[name];
  const picture = tensor[side];
  const [, rows, columns] = picture.size;
  const canvas = make("canvas");
  canvas.picture = picture;
  canvas.panel = panel;
  paint(canvas, picture, panel, palette());
  const byToken = rows === data.tokens.length;
  const labels = (kind) => make("div", { class: kind }, ...data.tokens.map((token) => make("span", {}, token.text)));
  const title = `${name}${tensor.heads ? `, head ${panel}` : ""}: ${side === "value" ? "value" : "gradient"}`;
  const large = $("large");
  large.replaceChildren(make("form", { method: "dialog" }, make("b", {}, title), make("button", {}, "Close")),
    make("div", { class: "plot" + (tensor.columns === "key" ? " square" : "") },
      ...(byToken ? [labels("rows")] : []), canvas, ...(tensor.columns === "key" ? [labels("keys")] : [])),
    make("p", {}, byToken ? "rows: tokens" : "", tensor.columns === "key" ? ", columns: the keys that they see" : ", columns: channels",
      `; ${number(-picture.peak)} (blue) to ${number(picture.peak)} (red)`));
  large.showModal();
}

function inspect(name, panel, cursor, rows, columns) {
  const tensor = data.tensors[name];
  cursor.mark.hidden = false;
  Object.assign(cursor.mark.style, {
    top: `${100 * cursor.row / rows}%`, height: `${100 / rows}%`,
    left: `${100 * cursor.column / columns}%`, width: `${100 / columns}%`,
  });
  const token = rows === data.tokens.length ? `, token ${cursor.row} “${data.tokens[cursor.row].text}”` : "";
  const first = cursor.column * tensor.pooled;
  const column = tensor.columns === "key"
    ? `, key ${cursor.column} “${data.tokens[cursor.column].text}”`
    : `, channel ${tensor.pooled > 1 ? first + "…" : first}`;
  $("inspector").textContent = `${name}${tensor.heads ? `, head ${panel}` : ""}${token}${column}:  ` +
    `value ≈ ${number(entry(tensor.value, panel, cursor.row, cursor.column))},  ` +
    `gradient ≈ ${number(entry(tensor.grad, panel, cursor.row, cursor.column))}`;
}

// ---- stages, parameters, moving about -----------------------------------------------------------------------------

function showStage(stage) {
  if (state.stage === stage) return;
  state.stage = stage;
  const colors = palette();
  $("boxes").replaceChildren(
    make("h2", { style: "margin-top: 0" }, stage.title), parameters(stage), ...stage.tensors.map((name) => box(name, colors)));
  for (const link of $("stages").querySelectorAll("a")) {
    if (link.hash === "#stage:" + stage.id) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

function parameters(stage) {
  const own = data.parameters.filter(([name]) =>
    name.startsWith(stage.id + ".") || (name.startsWith("w") && (stage.id === "embedding" || (stage.id === "lm_head" && name[1] === "t"))));
  if (!own.length) return "";
  const rows = own.map(([name, value, grad]) => make("tr", {}, make("td", {}, name), make("td", {}, number(value)),
    make("td", {}, number(grad)), make("td", {}, number(grad / (value || NaN)))));
  return make("details", { style: "margin-bottom: 0.9rem" }, make("summary", {}, "parameters and their gradients"),
    make("table", {}, make("tr", {}, ...["tensor", "norm", "gradient's norm", "ratio"].map((t) => make("th", {}, t))), ...rows));
}

// To a tensor by its name, or to a stage as "stage:…": the backward pass enters a stage by its last tensor.
function go(target, focus = true) {
  const stage = stages.find((s) => s.tensors.includes(target) || "stage:" + s.id === target);
  if (!stage) return;
  const name = stage.tensors.includes(target) ? target : stage.tensors[stage.tensors.length - 1];
  showStage(stage);
  document.querySelector(".box.current")?.classList.remove("current");
  state.tensor = name;
  const element = $("box-" + name);
  element.classList.add("current");
  if (focus) {
    const place = name === target ? element : $("boxes");
    place.focus({ preventScroll: true });
    place.scrollIntoView({ block: "start" });
  }
}

function fillStages() {
  const flow = Object.fromEntries(data.flow.map((f) => [f.name, f.grad]));
  const largest = Math.max(...Object.values(flow));
  for (const stage of [...stages].reverse()) {
    const last = [...stage.tensors].reverse().find((name) => name in flow);
    const link = make("a", { href: "#stage:" + stage.id }, stage.title);
    if (last) {
      link.append(make("small", {}, ` ‖grad‖ ${number(flow[last])}`),
        make("span", { class: "bar", style: `width: ${Math.max(2, 100 * flow[last] / largest)}%` }));
    }
    $("stages").append(link);
  }
}

// ---- tokens --------------------------------------------------------------------------------------------------------

function fillTokens() {
  const largest = Math.max(...data.tokens.map((t) => t.loss), 1e-9);
  const own = (i) => (i ? data.tokens[i - 1].loss : 0); // the loss of predicting token i from those before it
  data.tokens.forEach((token, i) => {
    const button = make("button", {
      type: "button", role: "radio", "aria-checked": "false", tabindex: i ? "-1" : "0", style: `--loss: ${own(i) / largest}`,
      "aria-label": `token ${i} ${token.text}` + (i ? `, loss ${number(own(i))}` : ""),
    }, token.text);
    button.addEventListener("click", () => chooseToken(i));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      chooseToken((i + step + data.tokens.length) % data.tokens.length);
      $("tokens").children[state.token].focus();
    });
    $("tokens").append(button);
  });
}

function chooseToken(i) {
  state.token = i;
  const token = data.tokens[i];
  [...$("tokens").children].forEach((button, j) => {
    button.setAttribute("aria-checked", String(i === j));
    button.tabIndex = i === j ? 0 : -1;
  });
  document.body.style.setProperty("--row", i);
  $("token").replaceChildren(
    `After `, make("b", {}, token.text), ` came `, make("b", {}, token.target),
    `: loss ${number(token.loss)}, probability ${number(Math.exp(-token.loss))}. The model's first guesses: `,
    ...token.top.flatMap(([text, p], k) => [k ? ", " : "", make("b", {}, text), ` ${(100 * p).toFixed(1)} %`]), ".",
    make("details", { open: "" }, make("summary", {}, "Logit lens: what the stream after each block would predict here"), lens(i)));
}

function lens(i) {
  const row = ({ after, tokens }) => make("tr", {}, make("td", {}, after), make("td", {}, number(tokens[i].loss)),
    make("td", {}, tokens[i].top.map(([text, p]) => `${text} ${(100 * p).toFixed(0)} %`).join("   ")));
  return make("table", { class: "lens" },
    make("tr", {}, ...["stream after", "loss", "first guesses"].map((t) => make("th", {}, t))), ...data.lens.map(row));
}

// ---- gradient flow -------------------------------------------------------------------------------------------------

function chart(key, title) {
  const ns = "http://www.w3.org/2000/svg";
  const draw = (tag, attributes, ...children) => {
    const element = document.createElementNS(ns, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const points = data.flow.filter((f) => f[key] > 0);
  const [width, height, left, bottom] = [520, 190, 54, 24];
  const logs = points.map((f) => Math.log10(f[key]));
  const [low, high] = [Math.floor(Math.min(...logs) * 2 - 0.2) / 2, Math.ceil(Math.max(...logs) * 2 + 0.2) / 2];
  const x = (i) => left + 12 + (width - left - 24) * i / Math.max(1, data.flow.length - 1);
  const y = (v) => 8 + (height - bottom - 8) * (high - Math.log10(v)) / (high - low);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": title });
  for (let tick = low; tick <= high + 1e-9; tick += 0.5) {
    svg.append(draw("line", { class: "grid", x1: left, x2: width, y1: y(10 ** tick), y2: y(10 ** tick) }),
      draw("text", { x: left - 4, y: y(10 ** tick) + 4, "text-anchor": "end" }, String(Number((10 ** tick).toPrecision(2)))));
  }
  const stream = data.flow.map((f, i) => [f, i]).filter(([f]) => f.stream && f[key] > 0);
  svg.append(draw("path", { d: "M" + stream.map(([f, i]) => `${x(i)},${y(f[key])}`).join("L") }));
  data.flow.forEach((f, i) => {
    if (!(f[key] > 0)) return;
    const dot = draw("circle", { cx: x(i), cy: y(f[key]), r: 5 }, draw("title", {}, `${f.name}: ${number(f[key])}`));
    svg.append(draw("a", { href: "#" + f.name, class: f.stream ? "stream" : "branch",
      "aria-label": `${f.name}, ${number(f[key])}` }, dot));
    if (f.name.endsWith("residual_1")) {
      svg.append(draw("text", { x: x(i), y: height - 6, "text-anchor": "middle" }, f.name.split(".")[1]));
    }
  });
  return make("figure", {}, make("figcaption", {}, title), svg);
}

// ---- begin ---------------------------------------------------------------------------------------------------------

function changeTheme() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  repaint();
}

$("faults").hidden = !data.faults.length;
$("faults").append(...data.faults.map((fault) => make("li", {}, fault)));
$("summary").textContent = `${data.model}: ${data.shape}. Loss ${number(data.loss)} nats a token over ${data.tokens.length} tokens` +
  (data.cut ? " (the text's beginning)." : ".");
document.body.style.setProperty("--rows", data.tokens.length);
fillTokens();
fillStages();
$("flow").append(
  chart("grad", "Norm of the gradient, embedding on the left, head on the right: ● the stream, ○ a branch; numbers are blocks"),
  chart("value", "Norm of the value at the same points"));
$("theme").addEventListener("click", changeTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
addEventListener("hashchange", () => go(decodeURIComponent(location.hash.slice(1))));
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const at = order.indexOf(state.tensor);
  if (event.key === "[" && at > 0) location.hash = order[at - 1];
  if (event.key === "]" && at < order.length - 1) location.hash = order[at + 1];
  if (event.key === "t") changeTheme();
});
chooseToken(0);
if (location.hash) go(decodeURIComponent(location.hash.slice(1)));
if (!state.stage) go(order[order.length - 1], false);
