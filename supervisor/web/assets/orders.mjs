// Orders to a run: asked back where something is lost by them, and the run's answer shown.

import { plain, sendOrder } from "./api.mjs";
import { element } from "./elements.mjs";
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
  const close = element("button", { type: "button", text: "✕", "aria-label": "close this message", click: () => place.replaceChildren() });
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

const QUESTIONS = {
  drain: { title: "Drain this run?", yes: "Drain", words: (live) => `Nothing new is started; ${counted(live.counts.in_progress, "running job")} may finish. ${counted(live.counts.pending, "job")} stay for a resume.` },
  stop: { title: "Stop this run now?", yes: "Stop", words: (live) => `${counted(live.counts.in_progress, "running job")} will be interrupted and run again on a resume. ${counted(live.counts.pending, "job")} stay for a resume.` },
};

/** @param {any} context @param {string} name @param {Object<string, any>} [more] number or jobs, and `many`: how many
 * jobs that are @returns {Promise<boolean>} */
export async function order(context, name, { many = 1, ...more } = {}) {
  const question = QUESTIONS[name];
  if (question && !(await dialog(question.title, [element("p", { text: question.words(context.live) })], question.yes))) return false;
  if (name === "cancel") {
    const words = `${many === 1 ? "It is ended if it runs, and not started if it waits" : "Those that run are ended, those that wait are not started"}; cancelled jobs count as failed.`;
    if (!(await dialog(`Cancel ${many === 1 ? plain(more.jobs[0]) : counted(many, "job")}?`, [element("p", { text: words })], "Cancel the job"))) return false;
  }
  if (name === "retry" && many > 1) {
    if (!(await dialog(`Retry ${counted(many, "job")}?`, [element("p", { text: "Each gets one more attempt, now." })], "Retry"))) return false;
  }
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
  const button = (text, act, more = {}) => element("button", { type: "button", text, click: act, ...more });
  const paused = live.state === "paused";
  place.append(button(paused ? "Resume" : "Pause", () => order(context, paused ? "resume" : "pause")));
  place.append(
    button("Drain…", () => order(context, "drain")),
    button("Stop…", () => order(context, "stop")),
    button("Workers…", () => askWorkers(context)),
    button("Stacks", () => give(context, { order: "stacks" })),
  );
  return place;
}
