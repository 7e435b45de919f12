// Results: one against another, a table, and all of them as CSV.

import { ask, download } from "./api.mjs";
import { button, element, notes } from "./elements.mjs";
import { drawResults } from "./results_table.mjs";
import { drawScatter } from "./scatter.mjs";

/** @param {any} context @returns {any} a view */
export function resultsView(context) {
  const plot = element("div");
  const table = element("div", { id: "results" });
  const told = element("div", { role: "status" });
  const fresh = button("Show what is new", () => draw(newest), { hidden: true });
  const csv = button("Save all rows as CSV", () => download(`x/${context.key}/results.csv`, {}, `${context.live.id}.csv`).catch(context.failed));
  let drawn = null;
  const draw = (found) => {
    drawn = found;
    fresh.hidden = true;
    told.replaceChildren(...notes(found.complete ? "" : `${found.note} The CSV has all of them.`, "Numbers are shown with at most 7 digits; the CSV has all of them."));
    plot.replaceChildren();
    table.replaceChildren();
    if (!drawScatter(plot, found)) plot.append(...notes("No number varies from job to job yet: there is nothing to plot."));
    drawResults(table, found);
  };
  let newest = null;
  let askedAt = -1e9;
  return {
    parts: [element("div", { class: "tools" }, csv, fresh), told, element("h2", { text: "One against another" }), plot, element("h2", { text: "Table" }), table],
    async tick() {
      if (performance.now() - askedAt < 3000) return;
      askedAt = performance.now();
      newest = await ask(`x/${context.key}/columns`);
      if (!drawn) draw(newest);
      else fresh.hidden = newest === drawn;
    },
  };
}
