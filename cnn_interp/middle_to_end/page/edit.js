"use strict";
// The view on which the patterns of a network's layer are judged; see shared.js.
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const plural = (count, one, several) => `${count} ${count === 1 ? one : several}`;

function enable() {
  const can = Boolean(state) && !busy && !ended;
  at("keep").disabled = at("drop").disabled = !can || state.asked === null;
  at("undo").disabled = !can || !state.said.length;
  at("refit").disabled = !can || !state.said.length || state.refit;
  at("refit").hidden = Boolean(state) && !state.labelled;
  at("more").disabled = !can;
  at("more").hidden = Boolean(state) && !state.left;
  for (const id of ["stop", "say"]) at(id).disabled = !can;
  at("merge-them").disabled = !can || ticked().length < 2;
  for (const button of document.querySelectorAll(".card button")) button.disabled = !can;
}

function ticked() {
  return [...new Set([...document.querySelectorAll(".card input[type='checkbox']:checked")].map((one) => one.value))];
}

function show(next) {
  const marked = new Set(ticked());
  state = next;
  document.title = `Editing: ${state.network}`;
  say(`${plural(state.said.length, "answer", "answers")}; ${plural(state.count, "pattern", "patterns")} of ` +
    `${state.layer} in ${state.network}; ${plural(state.images, "image", "images")}.`);
  const asked = state.patterns.find((one) => one.pattern === state.asked);
  at("asked-heading").textContent = asked ? `Is pattern ${asked.called} a piece of the object?` : "All are judged";
  at("about").textContent = asked ? about(asked) : "Nothing is left to ask about.";
  at("asked").replaceChildren(...(asked ? patches(asked, "Asked about: pattern") : []));
  effect();
  at("patterns").replaceChildren(...state.patterns.map((one) => card(one, marked.has(String(one.pattern)))));
  at("found").replaceChildren();
  at("said").replaceChildren(...state.said.map((line) => element("li", line)));
  enable();
}

function about(one) {
  if (one.category === undefined) return one.judged === "drop" ? "The network does without it." : "";
  const wrong = state.labelled ? `, ${signed(one.blame, 3)} to wrong answers` : "";
  return `Adds ${signed(one.influence, 2)} to “${one.category}” where it is strongest${wrong}; ` +
    `${Math.round(100 * one.apart)} % of it where nothing else speaks for the same answer.`;
}

// Of which patterns it is made goes into the address: a merged one has other patches than it had before.
function patches(one, where) {
  if (!one.patches) return [element("p", "Is seen in no image.", "quiet")];
  return Array.from({ length: one.patches }, (_, rank) => patchImage(
    `edit/patch/${one.pattern}/${rank}?of=${one.members.join("-")}`, `${where} ${one.called}, patch ${rank + 1}`));
}

function effect() {
  const [before, after] = state.accuracy;
  at("effect").textContent = state.labelled ? `Accuracy ${percent(before)} → ${percent(after)}`
    : `${percent(after)} of the answers stay`;
  const notes = [`${plural(state.changed, "answer", "answers")} of ${state.images} changed.`];
  if (state.refit) {
    notes.push(state.learned ? "The last layer was trained anew, maybe on these very images."
      : "The last layer was trained anew; each image is judged by one that was trained without it.");
  }
  at("effect-note").textContent = notes.join(" ");
  const heads = [["category", (row) => row.category], ["images", (row) => row.images],
    ["before", (row) => percent(row.before)], ["after", (row) => percent(row.after)],
    ["mended", (row) => row.mended], ["spoiled", (row) => row.spoiled]];
  const head = element("thead"), first = element("tr"), body = element("tbody");
  for (const [name] of heads) first.append(element("th", name));
  head.append(first);
  for (const row of state.labelled ? state.categories : []) {
    const line = element("tr");
    for (const [, of] of heads) line.append(element("td", String(of(row))));
    body.append(line);
  }
  at("categories").hidden = !state.labelled;
  at("categories").replaceChildren(head, body);
  at("pictures").replaceChildren(...state.pictures.map((one) => {
    const figure = element("figure", "", one.right ? "right" : ""), picture = element("img");
    picture.src = `edit/image/${one.image}`;
    picture.alt = one.name;
    picture.loading = "lazy";
    picture.width = picture.height = 96;
    figure.append(picture, element("figcaption", `${one.before} → ${one.after}${state.labelled && one.right ? ", right now" : ""}`));
    return figure;
  }));
}

function card(one, marked) {
  const block = element("div", "", "card"), line = element("div", "", "row"), tick = element("label", "", "check");
  const box = element("input"), name = element("span", `Pattern ${one.called}`);
  box.type = "checkbox";
  box.value = String(one.pattern);
  box.checked = marked;
  box.addEventListener("change", enable);
  tick.append(box, name);
  line.append(tick);
  if (one.members.length > 1) line.append(element("span", `of ${one.members.join(", ")}`, "quiet"));
  if (one.judged) line.append(element("span", one.judged === "keep" ? "kept" : "dropped", "verdict"));
  for (const what of ["keep", "drop"]) {
    if (one.judged === what) continue;
    const button = element("button", what === "keep" ? "Keep" : "Drop");
    button.type = "button";
    button.setAttribute("aria-label", `${button.textContent} pattern ${one.called}`);
    button.addEventListener("click", () => tell("edit/say", { line: `${what} ${one.pattern}` }));
    line.append(button);
  }
  const renamed = element("form", "", "row"), field = element("input"), give = element("button", "Rename");
  field.type = "text";
  field.maxLength = 60;
  field.size = 8;
  field.autocomplete = "off";
  field.setAttribute("aria-label", `A name for pattern ${one.called}`);
  give.type = "submit";
  give.setAttribute("aria-label", `Rename pattern ${one.called}`);
  renamed.append(field, give);
  renamed.addEventListener("submit", (event) => {
    event.preventDefault();
    tell("edit/say", { line: `rename ${one.pattern} ${field.value}` });
  });
  line.append(renamed);
  const shown = element("div", "", "patches");
  shown.append(...patches(one, "Pattern"));
  block.append(line, element("p", about(one), "quiet"), shown);
  return block;
}

at("keep").addEventListener("click", () => tell("edit/say", { line: `keep ${state.asked}` }));
at("drop").addEventListener("click", () => tell("edit/say", { line: `drop ${state.asked}` }));
at("undo").addEventListener("click", () => tell("edit/undo", {}));
at("refit").addEventListener("click", () => tell("edit/refit", {}));
at("more").addEventListener("click", () => tell("edit/more", {}));
at("merge").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (await tell("edit/say", { line: `merge ${ticked().join(" ")} as ${at("merged").value}` })) at("merged").value = "";
});
at("typed").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (await tell("edit/say", { line: at("line").value })) at("line").value = "";
});
at("look-up").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const answer = await call(`edit/pattern?word=${encodeURIComponent(at("word").value)}`), found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    const known = document.querySelector(`#patterns input[value="${found.pattern}"]`);
    at("found").replaceChildren(...(known ? [] : [card(found, false)]));
    enable();
    (known || document.querySelector("#found input")).focus();
  } catch (error) {
    at("found").replaceChildren(element("p", error.message));
  }
});
begin("edit/state");
