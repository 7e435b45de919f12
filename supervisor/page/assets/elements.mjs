// Elements of the page. Text goes in as textContent alone, whatever it holds.

/** @param {string} name @param {Object<string, any>} [attributes] a function is a listener, `text` the content
 * @param {...(Node|string)} children @returns {HTMLElement} */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") made.textContent = value;
    else if (typeof value === "function") made.addEventListener(key, value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

/** @param {Array<[string, string]>} pairs value and label @param {string} chosen @returns {HTMLOptionElement[]} */
export function choices(pairs, chosen) {
  return pairs.map(([value, label]) => element("option", { value, text: label, selected: value === chosen }));
}

/** @param {string} label @param {HTMLElement} control @returns {HTMLElement} both together */
export function labelled(label, control) {
  control.setAttribute("aria-label", label); // else some readers add all options of a select to its name
  return element("label", {}, element("span", { text: label }), control);
}

/** A table of texts, closed until somebody wants it: what a canvas shows, for who cannot see it.
 * @param {string[]} heads @param {() => string[][]} rows made when it is opened @param {string} [note]
 * @returns {HTMLElement} */
export function asTable(heads, rows, note = "") {
  const place = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "as a table" });
  const details = element("details", { class: "as-table" }, element("summary", { text: "as a table" }), place);
  details.addEventListener("toggle", () => {
    if (!details.open) return;
    const body = rows().map((cells) => element("tr", {}, ...cells.map((cell) => element("td", { text: cell }))));
    const head = element("tr", {}, ...heads.map((cell) => element("th", { scope: "col", text: cell })));
    place.replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
    if (note) place.append(element("p", { class: "note", text: note }));
  });
  return details;
}

/** @param {string} name of a custom property @returns {string} its colour now, light or dark */
export function themeColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** @param {string[]} texts one paragraph of `note` for those that are not empty @returns {HTMLElement[]} */
export function notes(...texts) {
  return texts.filter(Boolean).map((text) => element("p", { class: "note", text }));
}

/** A canvas as wide as its place, sharp on any screen. @param {HTMLCanvasElement} canvas @param {number} height
 * @returns {{context: CanvasRenderingContext2D, width: number, height: number}} in CSS pixels */
export function sharpCanvas(canvas, height) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(200, Math.floor(canvas.parentElement.clientWidth));
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Draw again when the width or the theme changes. @param {HTMLElement} place @param {() => void} draw */
export function redrawn(place, draw) {
  let before = 0;
  new ResizeObserver(() => {
    const width = Math.floor(place.clientWidth);
    if (width && width !== before) {
      before = width;
      draw();
    }
  }).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}
