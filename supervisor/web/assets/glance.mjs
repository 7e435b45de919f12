// States and counts, as every page shows them: by glyph and word as well as by colour.

import { cardTable, element, scroller } from "./elements.mjs";
import { clockTime, duration, grouped } from "./words.mjs";

const STATES = {
  running: ["●", "running"], "waiting for space": ["!", "warning"], paused: ["‖", "warning"], draining: ["◼", "warning"], finished: ["✓", "good"], "pilot done": ["✓", "good"],
  died: ["✗", "bad"], unfinished: ["○", "warning"], interrupted: ["‖", "warning"], "stopped early": ["‖", "warning"], "being read": ["…", "warning"],
};
export const JOB_STATES = { completed: "✓ completed", failed: "✗ failed", in_progress: "● running", pending: "○ waiting" };

/** @param {string} state @param {any} [counts] a run that is over with failures is not well
 * @returns {{glyph: string, kind: string}} */
export function stateOf(state, counts = null) {
  if (state.startsWith("unusable")) return { glyph: "✗", kind: "bad" };
  const [glyph, kind] = STATES[state] ?? (state.startsWith("pilot done") ? STATES.finished : ["●", "running"]);
  return state === "finished" && counts?.failed ? { glyph: "✗", kind: "bad" } : { glyph, kind };
}

/** @param {string} state @param {any} [counts] @returns {HTMLElement} */
export function stateWord(state, counts) {
  const { glyph, kind } = stateOf(state, counts);
  return element("span", { class: `state ${kind}` }, element("span", { class: "glyph", "aria-hidden": "true", text: `${glyph} ` }), state);
}

const SVG = "http://www.w3.org/2000/svg";

/** How far it is. @param {any} counts @returns {SVGElement} */
export function bar(counts) {
  const made = document.createElementNS(SVG, "svg");
  const parts = [["completed", counts.completed], ["failed", counts.failed], ["in-progress", counts.in_progress], ["pending", counts.pending]].filter(([, number]) => number);
  made.setAttribute("class", "bar");
  made.setAttribute("preserveAspectRatio", "none");
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", parts.map(([name, number]) => `${number} ${name.replace("-", " ")}`).join(", ") || "no jobs");
  let at = 0;
  for (const [name, number] of parts) {
    const wide = Math.max(4, (1000 * number) / counts.total);
    const piece = document.createElementNS(SVG, "rect");
    for (const [key, value] of Object.entries({ x: at, y: 0, width: wide, height: 12, class: name })) piece.setAttribute(key, String(value));
    made.append(piece);
    at += wide;
  }
  made.setAttribute("viewBox", `0 0 ${Math.max(1, at)} 12`);
  return made;
}

/** @param {any} counts @returns {string} `612/1,000 · 7 failed` */
export function progressWords(counts) {
  const failed = counts.failed ? ` · ${grouped(counts.failed)} failed` : "";
  return `${grouped(counts.completed + counts.failed)}/${grouped(counts.total)}${failed}`;
}

/** @param {number|null} seconds until then @returns {string} `ends 07:40, in 3h 12m`; "" if it is not known */
export function endWords(seconds) {
  if (seconds == null) return "";
  const at = Date.now() / 1000 + seconds;
  const today = new Date().toDateString() === new Date(at * 1000).toDateString();
  return `ends ${clockTime(at, !today)}, in ${duration(seconds)}`;
}

/** @param {string} at ISO 8601 @returns {string} local time with the day; "" if there is none */
export function timeWords(at) {
  const epoch = Date.parse(at) / 1000;
  return Number.isFinite(epoch) ? clockTime(epoch, true, true) : "";
}

/** A table whose rows become cards on a phone. @param {string} caption @param {string[]} heads
 * @param {Array<Array<string|Node>>} rows @param {Set<number>} [numbers] columns to the right @returns {HTMLElement} */
export function cards(caption, heads, rows, numbers = new Set()) {
  const right = (at) => (numbers.has(at) ? "number" : null);
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell, at) => element("td", { "data-label": heads[at], class: right(at) }, ...(cell === "" ? [] : [cell])))));
  const head = element("tr", {}, ...heads.map((name, at) => element("th", { scope: "col", text: name, class: right(at) })));
  return scroller(caption, cardTable(caption, head, element("tbody", {}, ...body)));
}
