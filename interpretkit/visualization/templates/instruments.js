"use strict";
// What the instruments of a page share: colours, files to save, libraries that are unpacked when first needed.
const instruments = {
  // Viridis, every eighth of the way.
  ramp: [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]],
  // Blue, white, red, as in the figures.
  diverging: [[5, 48, 97], [67, 147, 195], [247, 247, 247], [214, 96, 77], [103, 0, 31]],
  mixed(stops, share) {
    const at = Math.min(1, Math.max(0, share)) * (stops.length - 1), low = Math.min(stops.length - 2, Math.floor(at));
    return stops[low].map((v, i) => Math.round(v + (at - low) * (stops[low + 1][i] - v)));
  },
  css(stops, share) { return `rgb(${this.mixed(stops, share).join(" ")})`; },
  gradient(stops) { return `linear-gradient(90deg, ${stops.map(c => `rgb(${c.join(" ")})`).join(", ")})`; },
  number(value, digits = 3) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) {
      const [mantissa, power] = value.toExponential(digits - 1).split("e");
      const raised = [...String(+power)].map(sign => "⁰¹²³⁴⁵⁶⁷⁸⁹"[sign] ?? "⁻").join("");
      return `${+mantissa}·10${raised}`.replace("-", "−");
    }
    return String(size >= 10 ** digits ? Math.round(value) : +value.toPrecision(digits)).replace("-", "−");
  },
  bytes(text) { return Uint8Array.from(atob(text), c => c.charCodeAt(0)); },
  save(name, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
    link.download = name; link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  },
  loaded: {},
  library(id) {
    return this.loaded[id] ??= (async () => {
      const packed = this.bytes(document.getElementById(id).textContent.trim());
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
      const script = document.createElement("script");
      script.textContent = await new Response(stream).text();
      document.head.append(script);
    })();
  },
  made: {},
  start(kind, make) {
    for (const root of document.querySelectorAll(`[data-instrument="${kind}"]`))
      this.made[root.id] = make(root, JSON.parse(root.querySelector("script.data").textContent));
  },
  // A colour of the page itself, by day or by night.
  ink(root, name) { return getComputedStyle(root).getPropertyValue(name).trim(); },
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const one of Object.values(instruments.made)) one.redraw?.();
});
