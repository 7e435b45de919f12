// Elements of the page. Text goes in as textContent alone, whatever it holds.

/** @param {string} name @param {Object<string, any>} [attributes] a function is a listener, `text` the content
 * @param {...(Node|string)} children @returns {HTMLElement} */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value == null || value === false) continue;
    if (key === "text") made.textContent = value;
    else if (typeof value === "function") made.addEventListener(key, value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

/** @param {string} text @param {() => any} [click] @param {Object<string, any>} [more] @returns {HTMLElement} */
export function button(text, click, more) {
  return element("button", { type: "button", text, click, ...more });
}

/** @param {string} text beside it @param {boolean} checked @param {(event: Event) => any} [change]
 * @returns {HTMLElement} with the box as its first child */
export function checkbox(text, checked, change) {
  const box = element("input", { type: "checkbox", change });
  box.checked = checked;
  return element("label", { class: "box" }, box, element("span", { text }));
}

/** Draw what is in a place anew, and leave the focus at what says the same there, by its first word, or is the same row.
 * @param {HTMLElement} place @param {() => void} draw */
export function keepingFocus(place, draw) {
  const said = (one) => one.tagName + (one.dataset.row ?? one.dataset.as ?? one.textContent.split(" ")[0]);
  const before = place.contains(document.activeElement) ? said(document.activeElement) : "";
  draw();
  if (before) [...place.querySelectorAll("a, button")].find((one) => said(one) === before)?.focus();
}

/** What may be wider than the page is scrolled alone. @param {string} label @param {...Node} children
 * @returns {HTMLElement} */
export function scroller(label, ...children) {
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, ...children);
}

/** A table whose rows become cards on a phone. @param {string} caption @param {Node} head its row @param {Node} body
 * @returns {HTMLElement} */
export function cardTable(caption, head, body) {
  return element("table", { class: "cards" }, element("caption", { class: "unseen", text: caption }), element("thead", {}, head), body);
}

/** The head of a column that sorts: up, then down, then not at all. @param {string} name @param {string} words
 * @param {string} sort as it is now @param {boolean} isNumber @param {(changes: {sort: string}) => void} choose
 * @returns {HTMLElement} */
export function sortHead(name, words, sort, isNumber, choose) {
  const [up, down] = [sort === name, sort === `-${name}`];
  const click = () => choose({ sort: up ? `-${name}` : down ? "" : name });
  const order = up ? "ascending" : down ? "descending" : "none";
  return element("th", { scope: "col", class: isNumber ? "number" : null, "aria-sort": order }, button(`${words}${up ? " ↑" : down ? " ↓" : ""}`, click, { class: "sort" }));
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
  const place = scroller("as a table");
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

/** Copy the command beside a button, or mark it where that is not allowed. @param {HTMLElement} button */
export async function copy(button) {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "marked: copy it";
  }
}

/** A text. @param {CanvasRenderingContext2D} context @param {string} colour @param {string} align left, center or right
 * @param {string} text @param {number} x @param {number} y */
export function write(context, colour, align, text, x, y) {
  context.fillStyle = colour;
  context.textAlign = align;
  context.fillText(text, x, y);
}

/** A straight line. @param {CanvasRenderingContext2D} context @param {string} colour @param {number} wide
 * @param {number} x @param {number} y @param {number} toX @param {number} toY */
export function line(context, colour, wide, x, y, toX, toY) {
  context.strokeStyle = colour;
  context.lineWidth = wide;
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(toX, toY);
  context.stroke();
}

/** A filled rectangle. @param {CanvasRenderingContext2D} context @param {string} colour @param {number} x
 * @param {number} y @param {number} wide @param {number} high */
export function filled(context, colour, x, y, wide, high) {
  context.fillStyle = colour;
  context.fillRect(x, y, wide, high);
}

/** A canvas to be pointed at. @returns {{canvas: HTMLElement, tip: HTMLElement, frame: HTMLElement, told: HTMLElement}}
 * `frame` holds the first two, `told` says what is selected */
export function picture() {
  const tip = element("div", { class: "tip", hidden: true });
  const canvas = element("canvas", { tabindex: "0", role: "img", pointerleave: () => showTip(tip, "", 0, 0, 0) });
  return { canvas, tip, frame: element("div", { class: "canvas" }, canvas, tip), told: element("p", { class: "told", role: "status" }) };
}

/** What is under the pointer. @param {HTMLElement} tip @param {string} text "" for nothing @param {number} x
 * @param {number} y of the pointer @param {number} width of the picture */
export function showTip(tip, text, x, y, width) {
  tip.hidden = !text;
  tip.textContent = text;
  tip.style.left = `${Math.min(x + 12, width - 200)}px`;
  tip.style.top = `${y + 16}px`;
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
