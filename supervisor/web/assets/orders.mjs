// Orders to a run: asked back where something is lost by them, and the run's answer shown.

import { plain, sendOrder } from "./api.mjs";
import { button, element } from "./elements.mjs";
import { counted } from "./words.mjs";

/** @param {string} title @param {Array<Node|string>} parts @param {string} yes the word on its button; "" for none
 * @returns {Promise<boolean>} */
export function dialog(title, parts, yes = "") {
  return new Promise((resolve) => {
    const buttons = [element("button", { type: "submit", value: "", text: yes ? "Leave it" : "Close", autofocus: true })];
    if (yes) buttons.push(element("button", { type: "submit", value: "yes", text: yes, class: "strong" }));
    const form = element("form", { method: "dialog" }, element("h2", { text: title, id: "asked" }), ...parts, element("p", { class: "tools" }, ...buttons));
    const box = element("dialog", { "aria-labelledby": "asked" }, form);
    box.addEventListener("close", () => {
      box.remove();
      resolve(box.returnValue === "yes");
    });
    document.body.append(box);
    box.showModal();
  });
}

/** @param {string} text @param {string} [kind] good, bad or "" @param {string[]} [more] texts in blocks below */
export function say(text, kind = "", more = []) {
  const place = document.getElementById("said");
  const close = button("✕", () => place.replaceChildren(), { "aria-label": "close this message" });
  const glyph = { good: "✓ ", bad: "✗ " }[kind] ?? "";
  place.replaceChildren(element("div", { class: `said ${kind}` }, element("p", { text: glyph + plain(text) }), close, ...more.map((one) => element("pre", { text: plain(one) }))));
}

/** Send an order and show its answer. @param {any} context @param {any} order @returns {Promise<boolean>} */
export async function give(context, order) {
  try {
    const answer = await sendOrder(context.key, order);
    say(answer.text, "good", answer.stacks);
  } catch (error) {
    say([error.message, error.hint].filter(Boolean).join(" — "), "bad");
    return false;
  } finally {
    context.soon();
  }
  return true;
}

/** By order: title, words and the word on the button; nothing if it is not asked back. */
const QUESTIONS = {
  drain: ({ counts }) => ["Drain this run?", `Nothing new is started; ${counted(counts.in_progress, "running job")} may finish. ${counted(counts.pending, "job")} stay for a resume.`, "Drain"],
  stop: ({ counts }) => ["Stop this run now?", `${counted(counts.in_progress, "running job")} will be interrupted and run again on a resume. ${counted(counts.pending, "job")} stay for a resume.`, "Stop"],
  cancel: (_, many, jobs) => [
    `Cancel ${many === 1 ? plain(jobs[0]) : counted(many, "job")}?`,
    `${many === 1 ? "It is ended if it runs, and not started if it waits" : "Those that run are ended, those that wait are not started"}; cancelled jobs count as failed.`,
    "Cancel the job",
  ],
  retry: (_, many) => many > 1 && [`Retry ${counted(many, "job")}?`, "Each gets one more attempt, now.", "Retry"],
};

/** @param {any} context @param {string} name @param {Object<string, any>} [more] number or jobs, and `many`: how many
 * jobs that are @returns {Promise<boolean>} */
export async function order(context, name, { many = 1, ...more } = {}) {
  const [title, text, yes] = QUESTIONS[name]?.(context.live, many, more.jobs) || [];
  if (title && !(await dialog(title, [element("p", { text })], yes))) return false;
  return give(context, { order: name, ...more });
}

async function askWorkers(context) {
  const now = context.live.workers.length;
  const box = element("input", { type: "number", min: "1", max: "4096", value: String(now || 1), id: "workers", required: true });
  const label = element("label", {}, element("span", { text: "Workers from now on, in this run" }), box);
  if (await dialog("How many workers?", [label], "Change")) await give(context, { order: "workers", number: Number(box.value) });
}

/** The buttons of a live run; none if no orders are taken. @param {any} context @returns {HTMLElement} */
export function orderButtons(context) {
  const { live } = context;
  const place = element("div", { class: "tools orders", role: "group", "aria-label": "orders to the run" });
  if (!live.orders) return place;
  const paused = live.state === "paused";
  const ending = live.state === "draining"; // nothing new will be handed out: only its end can be hastened
  if (!ending) place.append(button(paused ? "Resume" : "Pause", () => order(context, paused ? "resume" : "pause"), { "data-as": "pause" }), button("Drain…", () => order(context, "drain")));
  place.append(button("Stop…", () => order(context, "stop")));
  if (!ending) place.append(button("Workers…", () => askWorkers(context)));
  place.append(button("Stacks", () => give(context, { order: "stacks" })));
  return place;
}
