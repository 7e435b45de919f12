// What failed, grouped by error and place.

import { link } from "./address.mjs";
import { ask, plain } from "./api.mjs";
import { button, element, notes } from "./elements.mjs";
import { timeWords } from "./glance.mjs";
import { order } from "./orders.mjs";
import { counted, grouped } from "./words.mjs";

const FEW = 8;

function groupPart(context, one) {
  const { key } = context;
  const jobs = (list) => list.flatMap((id, at) => [at ? ", " : "", element("bdi", {}, link({ x: key, p: "jobs", job: id }, plain(id), at ? {} : { "data-row": id }))]);
  const [first, last] = [timeWords(one.first_at), timeWords(one.last_at)];
  const told = [one.failed ? `${counted(one.failed, "job")} failed` : "", one.again ? `${counted(one.again, "attempt")} ran again` : "", first === last ? first : `${first} to ${last}`];
  const parts = [element("h2", { text: `${one.failed ? "✗" : "↻"} ${plain(one.kind)} ×${one.attempts}` }), element("p", { class: "note", text: told.filter(Boolean).join(", ") })];
  if (one.message) parts.push(element("p", { text: plain(one.message) }));
  if (one.jobs.length) {
    const more = one.jobs.slice(FEW);
    parts.push(element("p", {}, "failed: ", ...jobs(one.jobs.slice(0, FEW))));
    const words = one.jobs.length < one.jobs_total ? `the first ${one.jobs.length} of ${grouped(one.jobs_total)}` : `${more.length} more`;
    if (more.length) parts.push(element("details", {}, element("summary", { text: words }), element("p", {}, ...jobs(more))));
    if (context.live.orders) {
      const all = one.jobs.length === one.jobs_total;
      const text = one.jobs_total === 1 ? "Retry" : all ? `Retry all ${one.jobs_total}…` : `Retry the first ${one.jobs.length}…`;
      parts.push(button(text, () => order(context, "retry", { jobs: one.jobs, many: one.jobs.length })));
    }
  }
  if (one.traceback.trim()) parts.push(element("details", {}, element("summary", { text: `traceback of ${plain(one.example)}` }), element("pre", { text: plain(one.traceback) })));
  if (one.output_tail.length) parts.push(element("p", { class: "note", text: `last output of ${plain(one.example)}:` }), element("pre", { text: plain(one.output_tail.join("\n")) }));
  return element("article", { class: one.failed ? "group" : "group again", "data-kind": one.kind }, ...parts);
}

/** @param {any} context @returns {any} a view */
export function failuresView(context) {
  const place = element("div");
  const told = element("p", { class: "note", role: "status" });
  let document = null;
  let steerable = null;
  return {
    parts: [told, place],
    async tick() {
      const found = await ask(`x/${context.key}/failures`);
      if (found === document && steerable === context.live.orders) return;
      [document, steerable] = [found, context.live.orders];
      told.textContent = `${counted(found.total, "kind")} of failure, ${counted(found.failed, "job")} failed for good.${found.groups.length < found.total ? ` The first ${found.groups.length} are shown.` : ""}`;
      const open = new Set([...place.querySelectorAll("details[open]")].map((one) => one.closest("article").dataset.kind + one.firstChild.textContent));
      place.replaceChildren(...(found.groups.length ? found.groups.map((one) => groupPart(context, one)) : notes("Nothing has failed.")));
      for (const one of place.querySelectorAll("details")) one.open = open.has(one.closest("article").dataset.kind + one.firstChild.textContent);
    },
  };
}
