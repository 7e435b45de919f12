// The list of experiments.

import { chosen, keep, link } from "./address.mjs";
import { ask, plain } from "./api.mjs";
import { element, keepingFocus, labelled } from "./elements.mjs";
import { bar, cards, endWords, progressWords, stateWord, timeWords } from "./glance.mjs";
import { counted } from "./words.mjs";

/** @returns {any} a view: `parts` and `tick` */
export function experimentsView() {
  const filter = element("input", { type: "search", id: "filter", value: chosen().q ?? "", placeholder: "name, id or state" });
  const place = element("div");
  const told = element("p", { class: "note", role: "status" });
  let document = null;
  const draw = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (one) => words.every((word) => `${one.name} ${one.id} ${one.state}`.toLowerCase().includes(word));
    const found = document.experiments.filter(fits);
    told.textContent = `${counted(found.length, "experiment")}${found.length === document.total ? "" : ` of ${document.total}`}${document.complete ? "" : "; counts with ≥ are of the last progress: the journal may hold more"}`;
    const rows = found.map((one) => [
      one.name ? link({ x: one.key }, plain(one.name), { tabindex: -1 }) : "",
      link({ x: one.key }, one.id, { "data-row": one.key }),
      stateWord(one.state, one.counts),
      bar(one.counts),
      `${one.counted ? "" : "≥ "}${progressWords(one.counts)}`,
      one.live ? endWords(one.eta_seconds) || plain(one.waiting_for) : timeWords(one.saved_at),
    ]);
    place.replaceChildren(found.length ? cards("Experiments", ["name", "experiment", "state", "how far", "jobs", "ends, or saved"], rows) : element("p", { text: document.total ? "No experiment fits the filter." : "There are no experiments here yet; a script makes the first one, and it appears by itself." }));
  };
  filter.addEventListener("input", () => {
    keep({ q: filter.value });
    if (document) draw();
  });
  return {
    parts: [element("h1", { text: "Experiments" }), element("div", { class: "tools" }, labelled("filter", filter)), told, place],
    async tick() {
      const found = await ask("experiments");
      if (found === document) return;
      document = found;
      keepingFocus(place, draw);
    },
  };
}
