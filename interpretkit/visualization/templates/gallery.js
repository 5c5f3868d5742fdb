// Pictures to browse: searched by words, one group alone, sorted by any number.
instruments.start("gallery", (root, data) => {
  const part = name => root.querySelector(name), choice = name => part(`[data-choice=${name}]`);
  const list = part(".items"), items = [...list.children].map((element, place) => ({
    element, place, words: element.dataset.words.toLowerCase(), group: element.dataset.group, values: JSON.parse(element.dataset.values),
  }));
  const fill = (select, options) => {
    select.replaceChildren(...options.map(([value, text]) => {
      const option = document.createElement("option");
      option.value = value; option.textContent = text;
      return option;
    }));
    select.parentElement.hidden = options.length < 2;
  };
  const groups = [...new Set(items.map(item => item.group))];
  fill(choice("group"), [["", "all"], ...(groups.length > 1 ? groups.map(group => [group, group]) : [])]);
  fill(choice("order"), [["", "as they come"], ...data.numbers.flatMap((name, k) => [[`-${k}`, `${name}, largest first`], [`+${k}`, `${name}, smallest first`]])]);
  let most = data.most;
  const draw = () => {
    const words = choice("search").value.toLowerCase().split(/\s+/).filter(Boolean), group = choice("group").value, order = choice("order").value;
    const found = items.filter(item => (!group || item.group === group) && words.every(word => item.words.includes(word)));
    if (order) {
      const sign = order[0] === "-" ? -1 : 1, k = +order.slice(1), gap = v => v === null;
      found.sort((a, b) => gap(a.values[k]) || gap(b.values[k]) ? gap(a.values[k]) - gap(b.values[k]) : sign * (a.values[k] - b.values[k]) || a.place - b.place);
    }
    for (const item of items) item.element.hidden = true;
    for (const item of found.slice(0, most)) { item.element.hidden = false; list.append(item.element); }
    part(".status").textContent = `${Math.min(most, found.length)} of ${found.length} shown` + (found.length < items.length ? `, ${items.length} in all` : "");
    part("[data-act=more]").hidden = found.length <= most;
  };
  for (const name of ["search", "group", "order"]) choice(name).addEventListener("input", () => { most = data.most; draw(); });
  part("[data-act=more]").addEventListener("click", () => { most += data.most; draw(); });
  for (const item of items) item.element.querySelector("button").addEventListener("click", () => enlarge(item.element.querySelector("img")));
  draw();
  return {};
});
