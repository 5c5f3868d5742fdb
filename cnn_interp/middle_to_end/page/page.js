"use strict";
// The view on which a part is taught; see shared.js.
let box = null, moved = false;

function scale() { return at("stage").clientWidth / state.frame[1]; }

function place() {
  if (!box) { at("box").hidden = true; return; }
  const [row, column, height, width] = box, s = scale(), style = at("box").style;
  at("box").hidden = false;
  style.top = `${(row - height / 2) * s}px`;
  style.left = `${(column - width / 2) * s}px`;
  style.height = `${height * s}px`;
  style.width = `${width * s}px`;
  at("box").classList.toggle("moved", moved);
  at("box").setAttribute("aria-label",
    `Box of the ${state.part}: row ${Math.round(row)}, column ${Math.round(column)}, ` +
    `height ${Math.round(height)}, width ${Math.round(width)} px`);
}

function setBox(row, column, height, width) {
  const [tall, wide] = state.frame, inside = (x, low, high) => Math.min(Math.max(x, low), high);
  const h = inside(height, 4, tall), w = inside(width, 4, wide);
  box = [inside(row, 0, tall - 1), inside(column, 0, wide - 1), h, w];
  if (!moved) { moved = true; enable(); }
  place();
}

function enable() {
  const asked = state && state.question, known = asked && asked.box;
  for (const button of document.querySelectorAll("#answers button")) {
    const verdict = button.dataset.verdict;
    let can = Boolean(asked);
    if (!known) can = can && (verdict === "new template" || verdict === "absent");
    if (verdict === "wrong template") can = can && state.templates > 1;
    button.hidden = verdict === "flipped" && (!state || state.facing !== "either");
    button.disabled = !can || busy || ended;
    const first = known ? (moved ? "wrong box" : "right") : "new template";
    button.classList.toggle("first", can && verdict === first);
    if (verdict === "new template") button.querySelector("span").textContent = known ? "New template" : "It is here";
  }
  at("skip").disabled = !asked || busy || ended;
  at("undo").disabled = !state || !state.said.length || busy || ended;
  at("stop").disabled = busy || ended;
}

function show(next) {
  state = next;
  moved = false;
  document.title = `Teaching: ${state.part}`;
  at("part").textContent = state.part;
  const asked = state.question;
  const shown = state.said.filter((one) => one.place).length;
  say(`${state.said.length} answer${state.said.length === 1 ? "" : "s"}, ${shown} with the ${state.part}; ` +
    `${state.images} images.`);
  at("asked-heading").textContent = asked ? `Question ${state.said.length + 1}` : "Nothing is left to ask";
  at("stage").hidden = !asked;
  at("box-help").hidden = !asked;
  at("template-choice").hidden = true;
  if (asked) {
    const chance = `${Math.round(100 * asked.chance)} % likely to show the ${state.part}`;
    const kind = asked.box && state.templates > 1 ? `, template ${asked.template}` : "";
    at("name").textContent = `${asked.name}: ${chance}${kind}`;
    at("picture").src = `image/${asked.image}`;
    at("picture").alt = `Image ${asked.name}, in which the ${state.part} is looked for`;
    const [tall, wide] = state.frame;
    box = asked.box ? asked.box.slice() : [tall / 2, wide / 2, tall / 4, wide / 4];
  } else {
    at("name").textContent = "All images were answered for.";
    box = null;
  }
  place();
  enable();
  curve();
  said();
  grow();
}

function curve() {
  const values = state.expected, svg = at("curve");
  svg.replaceChildren();
  const now = values[values.length - 1];
  at("curve-text").textContent = values.length
    ? `Expected error: ${now.toFixed(3)} of the image's diagonal${values.length > 1 ? `, at first ${values[0].toFixed(3)}` : ""}.`
    : `Expected error: unknown as long as nobody has shown the ${state.part}.`;
  if (!values.length) return;
  const most = Math.max(...values) * 1.1, wide = 300, tall = 90;
  const x = (i) => 14 + (values.length > 1 ? (i / (values.length - 1)) * (wide - 14) : 0);
  const y = (v) => 8 + tall * (1 - v / most);
  const draw = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    svg.append(element);
  };
  draw("line", { x1: 14, x2: wide, y1: y(0), y2: y(0), stroke: "var(--line)" });
  draw("polyline", { points: values.map((v, i) => `${x(i)},${y(v)}`).join(" "), fill: "none",
    stroke: "var(--accent)", "stroke-width": 2.5 });
  values.forEach((v, i) => draw("circle", { cx: x(i), cy: y(v), r: 3, fill: "var(--accent)" }));
}

function said() {
  at("said").replaceChildren(...state.said.map((one) => {
    const line = document.createElement("li");
    const where = one.place ? ` (row ${Math.round(one.place[0])}, column ${Math.round(one.place[1])})` : "";
    line.textContent = `${one.name}: ${one.verdict}${where}`;
    return line;
  }));
}

function patch([image, row, column, half], alt) {
  return patchImage(`patch/${image}?row=${row}&column=${column}&half=${half}`, alt);
}

async function grow() {
  const number = state.number;
  let graph;
  try {
    const answer = await call("graph");
    if (!answer.ok) return;
    graph = await answer.json();
  } catch {
    return;
  }
  if (state.number !== number) return;
  const templates = graph.templates.map((template, place) => {
    const block = element("div", "", "template");
    block.append(element("p", `Template ${place}: shown in ${template.annotated}, learned from ${template.parsed} more`));
    const shown = element("div", "", "patches");
    template.shown.forEach((one, i) => shown.append(patch(one, `Template ${place}, shown ${i + 1}`)));
    block.append(shown);
    template.patterns.forEach((pattern, i) => {
      const line = element("div", "", "pattern");
      const [down, across] = pattern.offset.map((step) => signed(step, 0));
      line.append(element("span", `${down}, ${across}: ${Math.round(100 * pattern.strength)} %`, "quiet"));
      const patches = element("div", "", "patches");
      pattern.patches.forEach((one, j) => patches.append(patch(one, `Template ${place}, pattern ${i + 1}, patch ${j + 1}`)));
      line.append(patches);
      block.append(line);
    });
    return block;
  });
  at("templates").replaceChildren(...(templates.length ? templates
    : [element("p", `Nothing yet. Show the ${state.part} once.`, "quiet")]));
  at("unsure").replaceChildren(...(graph.unsure.length ? graph.unsure.map((one) => {
    const block = element("div", "", "unsure"), picture = element("img");
    picture.src = `image/${one.image}`;
    picture.alt = `${one.name}: the ${state.part} within ${Math.round(one.spread)} px`;
    picture.width = picture.height = 96;
    block.append(picture, marked(one.box));
    return block;
  }) : [element("p", "Nothing yet.", "quiet")]));
  const choice = at("template"), chosen = choice.value;
  choice.replaceChildren(...graph.templates.map((_, i) => {
    const option = element("option", `Template ${i}`);
    option.value = String(i);
    return option;
  }));
  choice.value = chosen;
}

function marked([top, left, bottom, right]) {
  const mark = element("div", "", "mark"), [tall, wide] = state.frame;
  mark.style.top = `${(100 * top) / tall}%`;
  mark.style.left = `${(100 * left) / wide}%`;
  mark.style.height = `${(100 * (bottom - top)) / tall}%`;
  mark.style.width = `${(100 * (right - left)) / wide}%`;
  return mark;
}

function answer(verdict) {
  if (verdict === "wrong template") {
    // First of which it is; the choice is the answer.
    const choice = at("template"), own = state.question.template;
    at("template-choice").hidden = false;
    for (const option of choice.options) option.disabled = Number(option.value) === own;
    choice.selectedIndex = -1;
    choice.focus();
    say("Put the box on the part, then choose the template it is of.");
    return;
  }
  const placed = verdict !== "right" && verdict !== "absent";
  tell("answer", { verdict, box: placed ? box : null });
}

for (const button of document.querySelectorAll("#answers button")) {
  button.addEventListener("click", () => answer(button.dataset.verdict));
}
at("template").addEventListener("change", (event) => {
  if (event.target.value !== "") {
    tell("answer", { verdict: "wrong template", box, template: Number(event.target.value) });
  }
});
at("skip").addEventListener("click", () => tell("skip", {}));
at("undo").addEventListener("click", () => tell("undo", {}));
at("try").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  if (!file) return;
  const shown = at("tried");
  try {
    const answered = await fetch("try", { method: "POST", body: file });
    if (answered.status === 413) throw new Error("The picture is too large.");
    const found = await answered.json();
    if (!answered.ok) throw new Error(found.error);
    const block = element("div", "", "tried"), picture = element("img");
    picture.src = found.picture;
    picture.alt = "The picture tried, with the box of the part";
    block.append(picture, marked(found.box));
    shown.replaceChildren(block, element("p",
      `${found.present ? "Found" : "Probably not there"}; within ${Math.round(found.spread)} px.`));
  } catch (error) {
    shown.replaceChildren(element("p", error.message));
  }
});

at("box").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !state || ended || !box) return;
  const arrows = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  if (!(event.key in arrows)) return;
  const [down, right] = arrows[event.key], step = 4;
  if (event.shiftKey) setBox(box[0], box[1], box[2] + 2 * step * down, box[3] + 2 * step * right);
  else setBox(box[0] + step * down, box[1] + step * right, box[2], box[3]);
  event.preventDefault();
});

let drag = null;
at("stage").addEventListener("pointerdown", (event) => {
  if (!box || busy || ended || (event.pointerType === "mouse" && event.button !== 0)) return;
  const frame = at("stage").getBoundingClientRect(), s = scale();
  const point = [(event.clientY - frame.top) / s, (event.clientX - frame.left) / s];
  const kind = event.target === at("corner") ? "resize" : event.target === at("box") ? "move" : "draw";
  drag = { kind, point, box: box.slice(), far: false };
  at("stage").setPointerCapture(event.pointerId);
  if (kind !== "draw") at("box").focus({ preventScroll: true });
  event.preventDefault();
});
at("stage").addEventListener("pointermove", (event) => {
  if (!drag) return;
  const frame = at("stage").getBoundingClientRect(), s = scale();
  const down = (event.clientY - frame.top) / s - drag.point[0], right = (event.clientX - frame.left) / s - drag.point[1];
  if (!drag.far && Math.hypot(down, right) * s < 3) return;
  drag.far = true;
  const [row, column, height, width] = drag.box;
  if (drag.kind === "move") setBox(row + down, column + right, height, width);
  else if (drag.kind === "resize") setBox(row + down / 2, column + right / 2, height + down, width + right);
  else setBox(drag.point[0] + down / 2, drag.point[1] + right / 2, Math.abs(down), Math.abs(right));
});
for (const name of ["pointerup", "pointercancel"]) {
  at("stage").addEventListener(name, (event) => {
    // A click beside the box brings it there.
    if (drag && !drag.far && drag.kind === "draw" && name === "pointerup") setBox(drag.point[0], drag.point[1], box[2], box[3]);
    drag = null;
    if (at("stage").hasPointerCapture(event.pointerId)) at("stage").releasePointerCapture(event.pointerId);
  });
}
at("picture").addEventListener("load", () => { if (state) place(); });
at("picture").addEventListener("dragstart", (event) => event.preventDefault());
window.addEventListener("resize", () => { if (state) place(); });

begin("state");
