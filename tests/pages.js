// What is wrong with the page that is open, as sentences: run in the page by tests/pages.py.
() => {
  const faults = [];
  const width = document.documentElement.clientWidth;
  const named = element => {
    const text = (element.getAttribute?.("aria-label") || element.textContent || element.alt || "").trim();
    return `<${element.localName}${element.className && element.className.baseVal === undefined ? "." +
      String(element.className).trim().replace(/\s+/g, ".") : ""}> "${text.replace(/\s+/g, " ").slice(0, 50)}"`;
  };
  const shown = element => element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });

  // Nothing is cut: the page is no wider than its window, and what is wider than its box can be scrolled to.
  if (document.documentElement.scrollWidth > width)
    faults.push(`the page is ${document.documentElement.scrollWidth} px wide in a window of ${width} px`);
  for (const element of document.body.querySelectorAll("*")) {
    if (!shown(element) || element.closest("svg, [data-foreign]")) continue;
    const style = getComputedStyle(element);
    const wide = element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0;
    if (wide && ["auto", "scroll"].includes(style.overflowX)) {
      if (element.tabIndex < 0) faults.push(`scrolls, but not by keyboard: ${named(element)}`);
      const hint = element.parentElement.querySelector(".scroll-hint");
      if (!hint || !shown(hint)) faults.push(`scrolls sideways without a word: ${named(element)}`);
    } else if (wide && ["hidden", "clip"].includes(style.overflowX) && !element.hasAttribute("data-cropped"))
      faults.push(`is cut: ${named(element)}`);
    else if (style.overflowX === "visible" && element.localName !== "input") {
      const box = element.getBoundingClientRect();
      let within = element.parentElement;
      while (within && getComputedStyle(within).overflowX === "visible") within = within.parentElement;
      if (!within && box.right > width + 1) faults.push(`reaches out of the window: ${named(element)}`);
    }
  }

  // Every picture says what it shows, each something else.
  const alts = [...document.images].map(image => image.alt.trim());
  if (alts.some(alt => !alt)) faults.push("a picture has no text");
  for (const alt of new Set(alts.filter((alt, place) => alt && alts.indexOf(alt) !== place)))
    faults.push(`several pictures have the text "${alt}"`);

  // Text can be read: WCAG 2.2, success criterion 1.4.3 (AA).
  const parsed = text => {
    const found = text.match(/rgba?\(([^)]*)\)/);
    if (!found) return null;
    const [r, g, b, a = 1] = found[1].split(/[\s,/]+/).filter(Boolean).map(Number);
    return [r, g, b, a];
  };
  const over = (top, bottom) => [0, 1, 2].map(i => top[i] * top[3] + bottom[i] * (1 - top[3])).concat(1);
  const luminance = colour => {
    const [r, g, b] = colour.slice(0, 3).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = element => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      // Of a gradient every stop may be what the text stands on.
      const stops = (style.backgroundImage.match(/rgba?\([^)]*\)/g) || []).map(parsed);
      if (stops.length) layers.push(stops);
      const colour = parsed(style.backgroundColor);
      if (colour && colour[3] > 0) layers.push([colour]);
      if (layers.length && layers.at(-1).every(c => c[3] === 1)) break;
    }
    let possible = [[255, 255, 255, 1]];
    for (const layer of layers.reverse()) possible = layer.flatMap(top => possible.map(below => over(top, below)));
    return possible;
  };
  const told = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !shown(element)) continue;
    if (element.closest("script, style, [disabled], [data-foreign]")) continue;
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    let strength = 1;
    for (let at = element; at; at = at.parentElement) strength *= Number(getComputedStyle(at).opacity);
    const colour = parsed(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
    if (!colour) continue;
    colour[3] *= strength;
    const worst = Math.min(...behind(element).map(ground => {
      const [high, low] = [luminance(over(colour, ground)), luminance(ground)].sort((a, b) => b - a);
      return (high + .05) / (low + .05);
    }));
    const key = `${element.localName}.${element.className}`;
    if (worst < least - .01 && !told.has(key)) {
      told.add(key);
      faults.push(`contrast ${worst.toFixed(2)} of ${least}: ${named(element)}`);
    }
  }

  // A button lies beside words, never on them.
  for (const button of document.querySelectorAll("button")) {
    if (!shown(button) || getComputedStyle(button).position !== "absolute" || !button.offsetParent) continue;
    const box = button.getBoundingClientRect();
    const words = document.createTreeWalker(button.offsetParent, NodeFilter.SHOW_TEXT);
    while (words.nextNode()) {
      if (button.contains(words.currentNode) || !words.currentNode.textContent.trim()) continue;
      const range = document.createRange();
      range.selectNodeContents(words.currentNode);
      if ([...range.getClientRects()].some(line => line.left < box.right - 1 && line.right > box.left + 1 &&
          line.top < box.bottom - 1 && line.bottom > box.top + 1))
        faults.push(`${named(button)} covers "${words.currentNode.textContent.trim().slice(0, 40)}"`);
    }
  }

  // What is chosen in a list is read whole.
  const ruler = document.createElement("canvas").getContext("2d");
  for (const select of document.querySelectorAll("select")) {
    if (!shown(select) || !select.selectedOptions.length) continue;
    const style = getComputedStyle(select), text = select.selectedOptions[0].textContent.trim();
    ruler.font = `${style.fontSize} ${style.fontFamily}`;
    // The arrow at its end takes about a letter and a half.
    const room = select.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - 1.2 * parseFloat(style.fontSize);
    if (ruler.measureText(text).width > room + 1 && select.clientWidth < width - 80)
      faults.push(`a list cuts what is chosen: ${named(select)} "${text}"`);
  }

  // People read words and numbers, not names of a program's variables and numbers as computers print them.
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const odd = [
    [/(?<![\w./-])[a-z]+(?:_[a-z]+)+(?![\w./])/, "a name of a program's variable"],
    [/\d[eE][+-]\d\d/, "a computer's way to write powers of ten"],
    [/\d\.0*[1-9]\d{5,}/, "too many digits"],
    [/(?<![\w.)\]-])-\d/, "a hyphen for a minus sign"],
    [/\b(?:NaN|undefined|null)\b|^\s*None\s*$/, "a computer's word for nothing"],
  ];
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (element.closest("script, style, code, pre, footer, noscript, [data-foreign], option[value]:not(:checked)")) continue;
    for (const [pattern, what] of odd) {
      const found = texts.currentNode.textContent.match(pattern);
      if (found) faults.push(`${what}: "${found[0]}" in ${named(element)}`);
    }
  }

  // A card, and a table, hold something.
  for (const value of document.querySelectorAll(".number .value"))
    if (["", "–"].includes(value.textContent.trim())) faults.push(`a card without a value: ${named(value.parentElement)}`);
  for (const body of document.querySelectorAll("tbody")) if (!body.rows.length) faults.push(`an empty table: ${named(body.closest(".table") ?? body)}`);

  // A control says what it does.
  for (const control of document.querySelectorAll("button, input, select, textarea, a[href]")) {
    if (!shown(control)) continue;
    const label = control.getAttribute("aria-label") || control.textContent.trim() || control.title ||
      [...(control.labels || [])].map(l => l.textContent.trim()).join("") ||
      [...control.querySelectorAll("img")].map(image => image.alt).join("");
    if (!label) faults.push(`a control without a name: ${named(control)}`);
  }
  return faults;
}
