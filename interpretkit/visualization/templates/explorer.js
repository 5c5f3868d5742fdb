// Items on a map of any two of their properties, each linked to its structure in three dimensions.
instruments.start("explorer", (root, data) => {
  const part = name => root.querySelector(name), choice = name => part(`[data-choice=${name}]`);
  const map = part("canvas.map"), tip = part(".tip"), viewerBox = part(".viewer"), n = data.names.length;
  const properties = data.properties, byKey = Object.fromEntries(properties.map(p => [p.key, p]));
  const titled = p => p.unit ? `${p.label} (${p.unit})` : p.label;
  const shape = { index: null, selected: new Set(), spin: false, places: [] };

  const fill = (select, options) => select.replaceChildren(...options.map(([value, text]) => {
    const option = document.createElement("option");
    option.value = value; option.textContent = text;
    return option;
  }));
  const numeric = properties.filter(p => p.numeric);
  fill(choice("x"), numeric.map(p => [p.key, titled(p)]));
  fill(choice("y"), numeric.map(p => [p.key, titled(p)]));
  fill(choice("colour"), properties.map(p => [p.key, titled(p)]));
  const groups = [...new Set(data.groups)];
  fill(choice("group"), [["", "all"], ...(groups.length > 1 ? groups.map(g => [g, g]) : [])]);
  fill(choice("filter"), [["", "–"], ...properties.map(p => [p.key, titled(p)])]);
  fill(choice("atoms"), [["", "by element"], ...data.atomValues.map((a, i) => [String(i), a.label])]);
  choice("atoms").parentElement.hidden = !data.atomValues.length;
  choice("x").value = data.x; choice("y").value = data.y; choice("colour").value = data.colour;
  if (data.atomValues.length) choice("atoms").value = "0";

  // ---- what is shown
  const allowed = i => {
    const group = choice("group").value, key = choice("filter").value, search = choice("search").value.trim().toLowerCase();
    if (group && data.groups[i] !== group) return false;
    if (search && !data.names[i].toLowerCase().includes(search)) return false;
    if (!key) return true;
    const value = byKey[key].values[i];
    if (!byKey[key].numeric) return !choice("word").value || String(value) === choice("word").value;
    const from = choice("from").valueAsNumber, to = choice("to").valueAsNumber;
    return value !== null && !(value < from) && !(value > to);
  };
  const shown = () => [...Array(n).keys()].filter(allowed);

  // ---- the map
  const range = (key, items) => {
    const values = items.map(i => byKey[key].values[i]).filter(v => v !== null);
    let low = Infinity, high = -Infinity;
    for (const v of values) { low = Math.min(low, v); high = Math.max(high, v); }
    if (!values.length) return [0, 1];
    const margin = (high - low) * .06 || .5;
    return [low - margin, high + margin];
  };
  const ticks = (low, high, most) => {
    const step = 10 ** Math.floor(Math.log10((high - low) / most));
    const size = [1, 2, 5, 10].map(k => k * step).find(s => (high - low) / s <= most);
    const first = Math.ceil(low / size);
    return Array.from({ length: Math.floor(high / size) - first + 1 }, (_, k) => +((first + k) * size).toPrecision(12));
  };
  const words = key => [...new Set(byKey[key].values.filter(v => v !== null).map(String))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const marker = (context, kind, x, y, r) => {
    context.beginPath();
    if (kind === "o") context.arc(x, y, r, 0, 7);
    else {
      const shapes = { s: [[-1, -1], [1, -1], [1, 1], [-1, 1]], "^": [[0, -1.2], [1.1, .9], [-1.1, .9]], v: [[0, 1.2], [1.1, -.9], [-1.1, -.9]],
        D: [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]],
        P: [[-.4, -1.2], [.4, -1.2], [.4, -.4], [1.2, -.4], [1.2, .4], [.4, .4], [.4, 1.2], [-.4, 1.2], [-.4, .4], [-1.2, .4], [-1.2, -.4], [-.4, -.4]],
        X: [[-1.2, -.7], [-.7, -1.2], [0, -.5], [.7, -1.2], [1.2, -.7], [.5, 0], [1.2, .7], [.7, 1.2], [0, .5], [-.7, 1.2], [-1.2, .7], [-.5, 0]],
        "*": Array.from({ length: 10 }, (_, k) => [Math.sin(k * Math.PI / 5), -Math.cos(k * Math.PI / 5)].map(v => v * (k % 2 ? .6 : 1.4))) };
      shapes[kind].forEach(([a, b], k) => context[k ? "lineTo" : "moveTo"](x + a * r, y + b * r));
      context.closePath();
    }
  };
  const colouring = items => {
    const property = byKey[choice("colour").value];
    if (!property.numeric) {
      const all = words(property.key), place = new Map(all.map((w, k) => [w, k]));
      return { property, all, of: i => {
        const k = place.get(String(property.values[i]));
        return k === undefined ? ["#8a949c", "o"] : [data.colours[k % data.colours.length], data.markers[(k + Math.floor(k / data.colours.length)) % data.markers.length]];
      } };
    }
    const values = items.map(i => property.values[i]).filter(v => v !== null).sort((a, b) => a - b);
    const low = values[Math.floor(values.length * .01)] ?? 0, high = values[Math.ceil(values.length * .99) - 1] ?? 1;
    return { property, low, high, of: i => {
      const value = property.values[i];
      return [value === null ? "#8a949c" : instruments.css(instruments.ramp, (value - low) / (high - low || 1)), "o"];
    } };
  };
  const draw = () => {
    const items = shown(), box = map.getBoundingClientRect(), ratio = devicePixelRatio || 1;
    if (!box.width) return;
    map.width = box.width * ratio; map.height = box.height * ratio;
    const context = map.getContext("2d"), ink = instruments.ink(root, "--ink"), line = instruments.ink(root, "--line"), paper = instruments.ink(root, "--card");
    context.scale(ratio, ratio); context.clearRect(0, 0, box.width, box.height);
    context.font = "12px system-ui, sans-serif";
    const [left, right, top, bottom] = [70, box.width - 10, 10, box.height - 44];
    const [x, y] = ["x", "y"].map(axis => choice(axis).value);
    const [xLow, xHigh] = range(x, items), [yLow, yHigh] = range(y, items);
    const across = v => left + (v - xLow) / (xHigh - xLow) * (right - left), up = v => bottom - (v - yLow) / (yHigh - yLow) * (bottom - top);
    context.strokeStyle = line; context.fillStyle = ink; context.lineWidth = 1;
    context.textAlign = "center"; context.textBaseline = "top";
    for (const tick of ticks(xLow, xHigh, Math.max(2, (right - left) / 70))) {
      context.beginPath(); context.moveTo(across(tick), top); context.lineTo(across(tick), bottom); context.stroke();
      context.fillText(instruments.number(tick, 12), across(tick), bottom + 5);
    }
    context.textAlign = "right"; context.textBaseline = "middle";
    for (const tick of ticks(yLow, yHigh, 8)) {
      context.beginPath(); context.moveTo(left, up(tick)); context.lineTo(right, up(tick)); context.stroke();
      context.fillText(instruments.number(tick, 12), left - 6, up(tick));
    }
    context.textAlign = "center"; context.textBaseline = "bottom";
    context.fillText(titled(byKey[x]), (left + right) / 2, box.height - 4, right - left);
    context.save(); context.translate(12, (top + bottom) / 2); context.rotate(-Math.PI / 2);
    context.textBaseline = "middle"; context.fillText(titled(byKey[y]), 0, 0, bottom - top); context.restore();
    const colour = colouring(items);
    shape.places = [];
    const placed = items.filter(i => byKey[x].values[i] !== null && byKey[y].values[i] !== null);
    // Designs over the data, what is selected over these, what is chosen last.
    const rank = i => (data.marked[i] ? 1 : 0) + (shape.selected.has(i) ? 2 : 0) + (i === shape.index ? 4 : 0);
    placed.sort((a, b) => rank(a) - rank(b));
    const small = placed.length > 600 ? 3 : 4.2;
    for (const i of placed) {
      const px = across(byKey[x].values[i]), py = up(byKey[y].values[i]), [fillColour, kind] = colour.of(i);
      const r = data.marked[i] || i === shape.index ? small + 1.8 : small;
      marker(context, kind, px, py, r);
      context.fillStyle = fillColour; context.globalAlpha = data.marked[i] || i === shape.index ? 1 : .75; context.fill();
      // A pale rim, or a dark one by day, for colours that are near the ground's.
      context.globalAlpha = .45; context.strokeStyle = ink; context.lineWidth = .7; context.stroke(); context.globalAlpha = 1;
      if (data.marked[i]) { context.strokeStyle = ink; context.lineWidth = 1.3; context.stroke(); }
      if (shape.selected.has(i)) { context.beginPath(); context.arc(px, py, r + 3.5, 0, 7); context.strokeStyle = instruments.ink(root, "--accent"); context.lineWidth = 2; context.stroke(); }
      if (i === shape.index) {
        for (const [width, tone] of [[5, paper], [2.4, ink]]) {
          context.beginPath(); context.arc(px, py, r + 6, 0, 7); context.strokeStyle = tone; context.lineWidth = width; context.stroke();
        }
      }
      shape.places.push([px, py, i]);
    }
    if (shape.band) {
      const [a, b, c, d] = shape.band;
      context.strokeStyle = instruments.ink(root, "--accent"); context.lineWidth = 1.5; context.setLineDash([5, 4]);
      context.strokeRect(Math.min(a, c), Math.min(b, d), Math.abs(c - a), Math.abs(d - b)); context.setLineDash([]);
    }
    legend(colour);
    const left_out = items.length - placed.length;
    part(".status").textContent = `${items.length} of ${n} shown` + (left_out ? `; ${left_out} have no such values` : "") +
      (shape.selected.size ? `; ${shape.selected.size} selected` : "") + ". Drag over the map to select several; structures to 0.001 Å.";
    part("[data-act=save-shown]").textContent = `Save the ${items.length} shown`;
    part("[data-act=save-shown]").disabled = !items.length;
    part("[data-act=save-selected]").hidden = part("[data-act=clear]").hidden = !shape.selected.size;
    part("[data-act=save-selected]").textContent = `Save the ${shape.selected.size} selected`;
  };
  const rampEntry = (stops, low, high, text) => {
    const entry = document.createElement("li"), bar = document.createElement("span"), ramp = document.createElement("span");
    bar.className = "bar-legend"; ramp.className = "ramp"; ramp.style.background = instruments.gradient(stops);
    bar.append(instruments.number(low), ramp, instruments.number(high)); entry.append(text, bar);
    return entry;
  };
  const legend = colour => {
    const list = part(".legend"), entries = [];
    const symbol = (kind, fillColour, ring) => {
      const drawn = document.createElement("canvas");
      drawn.width = drawn.height = 32; drawn.style.width = drawn.style.height = "1rem";
      const context = drawn.getContext("2d");
      marker(context, kind, 16, 16, 9); context.fillStyle = fillColour; context.fill();
      context.strokeStyle = instruments.ink(root, "--ink");
      if (ring) context.lineWidth = 3; else context.globalAlpha = .6;
      context.stroke();
      return drawn;
    };
    const entry = (drawn, text) => { const made = document.createElement("li"); made.append(drawn, text); entries.push(made); };
    if (colour.property.numeric) entries.push(rampEntry(instruments.ramp, colour.low, colour.high, titled(colour.property)));
    else colour.all.forEach((word, k) => entry(symbol(data.markers[(k + Math.floor(k / data.colours.length)) % data.markers.length], data.colours[k % data.colours.length]), word));
    if (data.marked.some(Boolean) && !data.marked.every(Boolean)) entry(symbol("o", "transparent", true), `strong rim: ${data.markedName}`);
    list.replaceChildren(...entries);
  };

  // ---- structures
  const packed = new Int16Array(instruments.bytes(data.positions).buffer), kinds = instruments.bytes(data.kinds);
  const starts = [0]; for (const size of data.sizes) starts.push(starts.at(-1) + size);
  const atoms = i => Array.from({ length: data.sizes[i] }, (_, k) => {
    const at = starts[i] + k;
    return { elem: data.elements[kinds[at]], place: [0, 1, 2].map(c => packed[3 * at + c] * data.step + data.centres[i][c]) };
  });
  let viewer = null, failed = false;
  const structure = async () => {
    if (shape.index === null || failed) return;
    try {
      const trial = document.createElement("canvas");
      if (!trial.getContext("webgl2") && !trial.getContext("webgl")) throw new Error("no WebGL");
      await instruments.library("lib-3dmol");
      viewer ??= $3Dmol.createViewer(viewerBox, { backgroundColor: "white", antialias: true, disableFog: true });
    } catch (error) { viewer = null; }
    if (!viewer) {
      failed = true;
      const told = document.createElement("p");
      told.className = "missing";
      told.textContent = "This browser draws nothing in three dimensions (it has no WebGL). Save the structure and open it elsewhere.";
      viewerBox.replaceChildren(told);
      return;
    }
    const i = shape.index, frame = data.frames[i], centre = data.centres[i], list = atoms(i);
    const turned = list.map(a => frame.map(axis => axis.reduce((sum, v, c) => sum + v * (a.place[c] - centre[c]), 0)));
    const values = choice("atoms").value === "" ? null : data.atomValues[+choice("atoms").value];
    const own = values && values.values[i], reach = values ? values.reach : 1, highlighted = new Set(data.highlighted[i]);
    viewer.removeAllModels(); viewer.removeAllLabels(); viewer.removeAllShapes();
    const model = viewer.addModel();
    model.addAtoms(list.map((a, k) => ({ elem: a.elem, x: turned[k][0], y: turned[k][1], z: turned[k][2], serial: k, bonds: [], bondOrder: [] })));
    const picked = list.map((a, k) => {
      const known = own && own[k] !== null && own[k] !== undefined;
      return known ? instruments.css(instruments.diverging, .5 + own[k] / (2 * reach)) : own ? "rgb(160 165 170)" : data.elementColours[a.elem];
    });
    const hex = text => text.startsWith("#") ? text : "#" + text.match(/\d+/g).map(v => (+v).toString(16).padStart(2, "0")).join("");
    // Labels of all atoms would hide them.
    const sizes = own ? own.map(Math.abs).sort((a, b) => b - a) : [], telling = own ? Math.max(sizes[Math.min(5, sizes.length - 1)], 1e-12) : 0;
    list.forEach((a, k) => {
      model.setStyle({ serial: k }, { sphere: { radius: data.radii[a.elem], color: hex(picked[k]) } });
      const [x, y, z] = turned[k];
      const text = own && own[k] !== null && own[k] !== undefined ? `${a.elem} ${instruments.number(+own[k].toPrecision(2))}` : a.elem;
      if (highlighted.has(k) || k >= data.hostSizes[i] || (own && Math.abs(own[k] ?? 0) >= telling))
        viewer.addLabel(text, { position: { x, y, z }, fontSize: 12, fontColor: "#1f2a33", backgroundColor: "white", backgroundOpacity: .75, inFront: true, alignment: "center" });
    });
    for (const [a, b] of data.bonds[i]) {
      const [start, end] = [a, b].map(k => ({ x: turned[k][0], y: turned[k][1], z: turned[k][2] }));
      viewer.addCylinder({ start, end, radius: .14, color: "#26303a" });
    }
    const kept = shape.viewed ? viewer.getView() : null;
    viewer.zoomTo();
    // It is fitted to the height; in a narrow window the width is what is short.
    const narrow = viewerBox.clientWidth / viewerBox.clientHeight;
    if (narrow < 1.2) viewer.zoom(narrow / 1.2);
    if (kept) { const view = viewer.getView(); kept[0] = view[0]; kept[1] = view[1]; kept[2] = view[2]; kept[3] = view[3]; viewer.setView(kept); }
    else { viewer.rotate(-65, "x"); shape.viewed = true; }
    viewer.render();
    const entries = [];
    if (own) entries.push(rampEntry(instruments.diverging, -reach, reach, `${values.label}${values.unit ? ` (${values.unit})` : ""}`));
    else for (const element of [...new Set(list.map(a => a.elem))]) {
      const entry = document.createElement("li"), disc = document.createElement("canvas");
      disc.width = disc.height = 32; disc.style.width = disc.style.height = "1rem";
      const context = disc.getContext("2d");
      marker(context, "o", 16, 16, 13); context.fillStyle = data.elementColours[element]; context.fill(); context.strokeStyle = "#6b7682"; context.lineWidth = 2; context.stroke();
      entry.append(disc, element); entries.push(entry);
    }
    part("[data-legend=atoms]").replaceChildren(...entries);
    viewerBox.dataset.shows = data.names[i];
  };
  const facts = () => {
    const i = shape.index;
    part(".chosen").textContent = `${data.names[i]} (${data.groups[i]})`;
    part(".facts").replaceChildren(...properties.filter(p => p.values[i] !== null).map(p => {
      const row = document.createElement("div"), name = document.createElement("dt"), value = document.createElement("dd");
      name.textContent = p.label;
      value.textContent = p.numeric ? instruments.number(p.values[i]) + (p.unit ? ` ${p.unit}` : "") : p.values[i];
      row.append(name, value);
      return row;
    }));
  };
  const choose = i => { shape.index = i; facts(); draw(); return structure(); };

  // ---- files
  const quoted = value => typeof value === "number" ? String(value) : `"${String(value).replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", " ")}"`;
  const extxyz = i => {
    const list = atoms(i), values = choice("atoms").value === "" ? null : data.atomValues[+choice("atoms").value];
    const own = values && values.values[i];
    const info = { ...data.info[i], ...Object.fromEntries(properties.filter(p => p.values[i] !== null && !(p.key in data.info[i])).map(p => [p.key, p.values[i]])) };
    const head = `Properties=species:S:1:pos:R:3${own ? `:${values.key}:R:1` : ""} ` +
      Object.entries(info).map(([key, value]) => `${key}=${quoted(value)}`).join(" ") + ' pbc="F F F"';
    return `${list.length}\n${head}\n` + list.map((a, k) => [a.elem, ...a.place.map(v => v.toFixed(4)), ...(own ? [(own[k] ?? NaN)] : [])].join(" ")).join("\n") + "\n";
  };
  const save = (name, items) => instruments.save(`${name.replace(/[^\w.-]+/g, "_")}.extxyz`, items.map(extxyz).join(""));

  // ---- controls
  const extremes = part(".extremes");
  for (const p of numeric) {
    for (const [text, sign] of [[p.lowest, 1], [p.highest, -1]]) {
      if (!text) continue;
      const button = document.createElement("button");
      button.type = "button"; button.className = "plain-button"; button.textContent = text;
      button.addEventListener("click", () => {
        const items = shown().filter(i => p.values[i] !== null);
        if (items.length) choose(items.reduce((best, i) => sign * p.values[i] < sign * p.values[best] ? i : best));
      });
      extremes.append(button);
    }
  }
  extremes.hidden = !extremes.children.length;
  const filtered = () => {
    const property = byKey[choice("filter").value];
    for (const label of root.querySelectorAll("[data-range]")) label.hidden = !property || !property.numeric;
    part("[data-word]").hidden = !property || property.numeric;
    if (property && !property.numeric) fill(choice("word"), [["", "anything"], ...words(property.key).map(w => [w, w])]);
    if (property && property.numeric) {
      const [low, high] = range(property.key, [...Array(n).keys()]);
      choice("from").value = +low.toPrecision(3); choice("to").value = +high.toPrecision(3);
    }
  };
  for (const control of root.querySelectorAll("[data-choice]")) {
    control.addEventListener("input", () => {
      if (control === choice("filter")) filtered();
      if (control === choice("atoms")) structure(); else draw();
    });
  }
  const acts = {
    above: () => { if (viewer) { const v = viewer.getView(); viewer.setView([v[0], v[1], v[2], v[3], 0, 0, 0, 1]); viewer.render(); } },
    beside: () => { if (viewer) { acts.above(); viewer.rotate(-90, "x"); viewer.render(); } },
    spin: button => { shape.spin = !shape.spin; button.setAttribute("aria-pressed", shape.spin); viewer?.spin(shape.spin ? "y" : false); },
    "save-one": () => { if (shape.index !== null) save(data.names[shape.index], [shape.index]); },
    "save-shown": () => save(`${data.file}-shown`, shown()),
    "save-selected": () => save(`${data.file}-selected`, [...shape.selected].sort((a, b) => a - b)),
    clear: () => { shape.selected.clear(); draw(); map.focus(); },
  };
  for (const button of root.querySelectorAll("[data-act]")) button.addEventListener("click", () => acts[button.dataset.act](button));
  const nearest = event => {
    const box = map.getBoundingClientRect(), [px, py] = [event.clientX - box.left, event.clientY - box.top];
    let best = null, distance = 15 ** 2;
    for (const [x, y, i] of shape.places) {
      const d = (x - px) ** 2 + (y - py) ** 2;
      if (d <= distance) { distance = d; best = [x, y, i]; }
    }
    return [best, px, py];
  };
  map.addEventListener("pointerdown", event => {
    if (event.button) return;
    const [, px, py] = nearest(event);
    shape.from = [px, py];
    if (event.pointerType === "mouse") map.setPointerCapture(event.pointerId);
  });
  map.addEventListener("pointermove", event => {
    const [best, px, py] = nearest(event);
    if (shape.from && event.pointerType === "mouse" && event.buttons === 1 && Math.hypot(px - shape.from[0], py - shape.from[1]) > 6) {
      shape.band = [...shape.from, px, py]; tip.hidden = true; draw();
      return;
    }
    tip.hidden = !best;
    if (!best) return;
    const i = best[2], keys = [...new Set([choice("x").value, choice("y").value, choice("colour").value])];
    tip.textContent = `${data.names[i]}: ` + keys.filter(k => byKey[k].values[i] !== null).map(k =>
      `${byKey[k].label} ${byKey[k].numeric ? instruments.number(byKey[k].values[i]) : byKey[k].values[i]}${byKey[k].unit ? ` ${byKey[k].unit}` : ""}`).join(", ");
    const room = map.clientWidth;
    tip.style.left = Math.max(0, Math.min(best[0] + 12, room - 240)) + "px"; tip.style.top = best[1] + 14 + "px";
  });
  map.addEventListener("pointerleave", () => { tip.hidden = true; });
  map.addEventListener("pointerup", event => {
    if (shape.band) {
      const [a, b, c, d] = shape.band;
      for (const [x, y, i] of shape.places)
        if (x >= Math.min(a, c) && x <= Math.max(a, c) && y >= Math.min(b, d) && y <= Math.max(b, d)) shape.selected.add(i);
      shape.band = null; draw();
    } else if (shape.from) {
      const [best] = nearest(event);
      if (best) { if (event.shiftKey || event.ctrlKey) toggle(best[2]); choose(best[2]); }
    }
    shape.from = null;
  });
  const toggle = i => { if (!shape.selected.delete(i)) shape.selected.add(i); };
  map.addEventListener("keydown", event => {
    const axis = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, -1], ArrowDown: [1, 1] }[event.key];
    if (axis && shape.places.length) {
      event.preventDefault();
      const order = [...shape.places].sort((a, b) => a[axis[0]] - b[axis[0]] || a[2] - b[2]);
      // A key may be faster than the first structure, which is chosen when the explorer is first seen.
      const from = shape.index ?? data.first, at = order.findIndex(place => place[2] === from);
      choose(order[Math.min(order.length - 1, Math.max(0, at < 0 ? 0 : at + axis[1]))][2]);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      if (shape.index !== null) { toggle(shape.index); draw(); }
    }
  });
  viewerBox.addEventListener("keydown", event => {
    const turn = { ArrowLeft: [-10, "y"], ArrowRight: [10, "y"], ArrowUp: [-10, "x"], ArrowDown: [10, "x"] }[event.key];
    if (!viewer || !(turn || "+-=".includes(event.key))) return;
    event.preventDefault();
    if (turn) viewer.rotate(...turn); else viewer.zoom(event.key === "-" ? .85 : 1.18);
    viewer.render();
  });
  // A row of a table opens its item.
  for (const table of document.querySelectorAll(`table[data-opens="${root.id}"]`)) {
    for (const button of table.querySelectorAll(".open-row")) {
      const i = data.names.indexOf(button.dataset.item);
      if (i < 0) continue;
      button.addEventListener("click", () => { choose(i); root.scrollIntoView({ block: "start" }); map.focus({ preventScroll: true }); });
    }
  }
  new ResizeObserver(() => { draw(); viewer?.resize(); }).observe(map);
  const begin = new IntersectionObserver(seen => {
    if (!seen.some(one => one.isIntersecting)) return;
    begin.disconnect();
    if (shape.index === null) choose(data.first);
  }, { rootMargin: "300px" });
  begin.observe(root);
  draw();
  return { redraw: draw, choose };
});
