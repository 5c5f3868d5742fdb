// A map over its image: how strongly is a slider, and pointing at a place tells its value.
instruments.start("maps", (root, data) => {
  const part = name => root.querySelector(name), choice = name => part(`[data-choice=${name}]`);
  const canvas = part("canvas"), probe = { at: null };
  const fill = (select, words) => {
    select.replaceChildren(...words.map((text, value) => {
      const option = document.createElement("option");
      option.value = value; option.textContent = text;
      return option;
    }));
    select.parentElement.hidden = words.length < 2;
  };
  fill(choice("image"), data.images.map(image => image.name));
  const unique = words => [...new Set(words)];
  const image = () => data.images[+choice("image").value];
  const targets = () => unique(image().maps.map(map => map.target));
  const methods = () => unique(image().maps.filter(map => map.target === targets()[+choice("target").value]).map(map => map.method));
  const map = () => image().maps.find(one => one.target === targets()[+choice("target").value] && one.method === methods()[+choice("method").value]);
  const pictures = {};
  const loaded = async index => {
    if (!pictures[index]) {
      const picture = new Image();
      picture.src = data.images[index].picture;
      await picture.decode();
      pictures[index] = picture;
    }
    return pictures[index];
  };
  const values = one => one.decoded ??= new Int8Array(instruments.bytes(one.values).buffer);
  // The heat of a map, as a picture of the map's own size.
  const heat = one => {
    if (one.heat) return one.heat;
    const drawn = document.createElement("canvas"), given = values(one);
    drawn.width = one.width; drawn.height = one.height;
    const context = drawn.getContext("2d"), pixels = context.createImageData(one.width, one.height);
    for (let k = 0; k < given.length; k++) {
      const share = given[k] / 127, size = Math.abs(share) ** 1.1, colour = share >= 0 ? data.warm : data.cold;
      pixels.data.set([...colour, Math.round(255 * size)], 4 * k);
    }
    context.putImageData(pixels, 0, 0);
    return one.heat = drawn;
  };
  const crop = () => image().crop ?? [0, 0, image().width, image().height];
  const view = () => choice("whole").checked ? [0, 0, image().width, image().height] : crop();
  const paint = (target, picture, width, height) => {
    const context = target.getContext("2d"), [x, y, w, h] = view(), [cx, cy, cw, ch] = crop(), one = map();
    target.width = width; target.height = height;
    const strength = +choice("opacity").value / 100, sx = width / w, sy = height / h;
    context.imageSmoothingQuality = "high";
    // What lies under the heat is greyed as far as it is strong, so that its colour is the heat's.
    context.filter = `grayscale(${strength})`;
    context.drawImage(picture, -x * sx, -y * sy, image().width * sx, image().height * sy);
    context.filter = "none";
    context.globalAlpha = strength;
    context.drawImage(heat(one), (cx - x) * sx, (cy - y) * sy, cw * sx, ch * sy);
    context.globalAlpha = 1;
    if (choice("whole").checked && image().crop) {
      context.strokeStyle = "#fff"; context.lineWidth = Math.max(2, width / 250);
      context.strokeRect((cx - x) * sx, (cy - y) * sy, cw * sx, ch * sy);
      context.strokeStyle = "#000"; context.lineWidth /= 2; context.setLineDash([8, 6]);
      context.strokeRect((cx - x) * sx, (cy - y) * sy, cw * sx, ch * sy); context.setLineDash([]);
    }
    if (probe.at && target === canvas) {
      const [px, py] = [(cx + probe.at[0] * cw - x) * sx, (cy + probe.at[1] * ch - y) * sy];
      for (const [tone, wide] of [["#000", 4], ["#fff", 2]]) {
        context.beginPath(); context.arc(px, py, 8, 0, 7); context.strokeStyle = tone; context.lineWidth = wide; context.stroke();
      }
    }
  };
  const told = () => {
    const one = map(), about = `${image().name}: ${one.method}, ${one.target}`;
    canvas.setAttribute("aria-label", `${about}. Arrows move a probe that tells the map's value.`);
    let text = image().note;
    if (probe.at) {
      const column = Math.min(one.width - 1, Math.floor(probe.at[0] * one.width)), row = Math.min(one.height - 1, Math.floor(probe.at[1] * one.height));
      const share = values(one)[row * one.width + column] / 127;
      text += ` Here ${instruments.number(Math.round(share * 100))} % of the strongest` + (one.signed ? share < 0 ? ", against it." : ", for it." : ".");
    }
    part(".status").textContent = text;
    const entry = document.createElement("li"), bar = document.createElement("span"), ramp = document.createElement("span");
    const css = c => `rgb(${c.join(" ")})`;
    bar.className = "bar-legend"; ramp.className = "ramp";
    ramp.style.background = one.signed ? `linear-gradient(90deg, ${css(data.cold)}, #f4f4f4, ${css(data.warm)})` : `linear-gradient(90deg, #f4f4f4, ${css(data.warm)})`;
    bar.append(one.signed ? `against it, ${instruments.number(-one.top)}` : "0", ramp, (one.signed ? "for it, " : "") + instruments.number(one.top));
    entry.append(bar, ` ${one.meaning}`);
    part(".legend").replaceChildren(entry);
  };
  let turn = 0;
  const draw = async () => {
    const mine = ++turn, picture = await loaded(+choice("image").value);
    if (mine !== turn) return;
    const [, , w, h] = view(), box = part(".stage").clientWidth, ratio = devicePixelRatio || 1;
    const width = Math.min(box, 560 * Math.max(1, w / h)), height = width * h / w;
    canvas.style.width = width + "px"; canvas.style.height = height + "px";
    paint(canvas, picture, Math.round(width * ratio), Math.round(height * ratio));
    part("[data-whole]").hidden = !image().crop;
    told();
    root.dataset.drawn = `${image().name}|${map().target}|${map().method}|${choice("opacity").value}|${choice("whole").checked}`;
  };
  for (const name of ["image", "target", "method", "opacity", "whole"]) {
    choice(name).addEventListener("input", () => {
      if (name === "image" || name === "target") {
        // The same target and method, where the other image has them.
        const before = { target: choice("target").selectedOptions[0]?.textContent, method: choice("method").selectedOptions[0]?.textContent };
        if (name === "image") { fill(choice("target"), targets()); choice("target").value = Math.max(0, targets().indexOf(before.target)); }
        fill(choice("method"), methods());
        choice("method").value = Math.max(0, methods().indexOf(before.method));
      }
      draw();
    });
  }
  part("[data-act=enlarge]").addEventListener("click", async () => {
    const drawn = document.createElement("canvas"), picture = await loaded(+choice("image").value), [, , w, h] = view();
    paint(drawn, picture, Math.round(w), Math.round(h));
    const copy = new Image();
    copy.alt = canvas.getAttribute("aria-label"); copy.src = drawn.toDataURL();
    await copy.decode();
    enlarge(copy);
  });
  const point = (x, y) => { probe.at = [Math.min(1, Math.max(0, x)), Math.min(1, Math.max(0, y))]; draw(); };
  canvas.addEventListener("pointermove", event => {
    const box = canvas.getBoundingClientRect(), [x, y, w, h] = view(), [cx, cy, cw, ch] = crop();
    const place = [(event.clientX - box.left) / box.width * w + x, (event.clientY - box.top) / box.height * h + y];
    const within = [(place[0] - cx) / cw, (place[1] - cy) / ch];
    if (within.every(v => v >= 0 && v <= 1)) point(...within);
  });
  canvas.addEventListener("keydown", event => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [x, y] = probe.at ?? [.5, .5];
    point(x + step[0] * .04, y + step[1] * .04);
  });
  fill(choice("target"), targets());
  fill(choice("method"), methods());
  new ResizeObserver(draw).observe(part(".stage"));
  draw();
  return { redraw: draw };
});
