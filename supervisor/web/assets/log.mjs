// A text that grows: the supervisor's log, or what a job prints. Read in pieces, from its end on.

import { chosen, keep } from "./address.mjs";
import { ask, plain } from "./api.mjs";
import { button, checkbox, element, labelled } from "./elements.mjs";
import { memorySize } from "./words.mjs";

const PIECE = 256 * 1024;
const MOST = 4 * 1024 * 1024; // characters that are kept; what is dropped can be read again

/** @param {any} context @param {string} path @param {Object<string, string>} query @param {string} nothing
 * @returns {any} `parts`, and `tick`, which reads on */
export function textFollower(context, path, query, nothing) {
  const text = element("pre", { class: "log", tabindex: "0", role: "region", "aria-label": "text" });
  const told = element("p", { class: "note" });
  const earlier = button("Earlier", null, { hidden: true });
  const box = checkbox("follow", true);
  const follow = box.firstChild;
  const filter = element("input", { type: "search", id: "find", value: chosen().find ?? "", placeholder: "only lines with" });
  let [kept, first, next, live] = ["", 0, null, 0];
  const draw = () => {
    const word = filter.value.toLowerCase();
    const lines = word ? kept.split("\n").filter((line) => line.toLowerCase().includes(word)).join("\n") : kept;
    text.textContent = plain(lines) || (kept ? "No line has it." : nothing);
    earlier.hidden = first === 0;
    told.textContent = first ? `Shown from ${memorySize(first / 2 ** 20)} on; what comes before is behind “Earlier”.` : "";
  };
  const toEnd = () => {
    if (follow.checked) text.scrollTop = text.scrollHeight;
  };
  // Who scrolls back reads there, and goes on following at the end.
  text.addEventListener("scroll", () => {
    follow.checked = text.scrollTop + text.clientHeight > text.scrollHeight - 9;
  });
  filter.addEventListener("input", () => {
    keep({ find: filter.value });
    draw();
    toEnd();
  });
  earlier.addEventListener("click", async () => {
    try {
      const from = Math.max(0, first - PIECE);
      let piece = await ask(path, { ...query, from });
      let before = piece.text;
      while (piece.next < first && piece.next > piece.from) {
        piece = await ask(path, { ...query, from: piece.next });
        before += piece.text;
      }
      [kept, first, follow.checked] = [before + kept, from, false];
      draw();
    } catch (error) {
      context.failed(error);
    }
  });
  return {
    parts: [element("div", { class: "tools" }, labelled("find", filter), box, earlier), told, text],
    async tick() {
      for (let pieces = 0; pieces < 8; pieces++) {
        const found = await ask(path, next === null ? query : { ...query, from: next });
        const another = (found.live ?? 0) !== live || (next !== null && found.total < next);
        if (another && next !== null) {
          [kept, first, next, live] = ["", 0, null, found.live ?? 0];
          continue;
        }
        live = found.live ?? 0;
        if (next === null) first = found.from;
        const changed = found.text !== "" || next === null;
        next = found.exists ? found.next : null;
        if (changed) {
          const goesOn = kept && !filter.value && kept.length + found.text.length <= MOST;
          kept += found.text;
          if (kept.length > MOST) {
            first += new TextEncoder().encode(kept.slice(0, kept.length - MOST)).length;
            kept = kept.slice(-MOST);
          }
          if (goesOn) text.append(plain(found.text)); // what is marked there stays so
          else draw();
          toEnd();
        }
        if (found.complete || !found.text) break;
      }
    },
  };
}

/** @param {any} context @returns {any} a view */
export function logView(context) {
  return textFollower(context, `x/${context.key}/log`, {}, "There is no supervisor.log yet.");
}
