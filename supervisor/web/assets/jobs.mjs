// Jobs, filtered, sorted and paged by the server, and one job with all its attempts.

import { chosen, keep, link } from "./address.mjs";
import { ask, plain } from "./api.mjs";
import { button, cardTable, choices, element, keepingFocus, labelled, notes, scroller, sortHead } from "./elements.mjs";
import { JOB_STATES, cards, timeWords } from "./glance.mjs";
import { textFollower } from "./log.mjs";
import { order } from "./orders.mjs";
import { counted, duration, grouped, memorySize } from "./words.mjs";

const COLUMNS = [["job", "job"], ["state", "state"], ["domain", "domain"], ["attempts", "attempts"], ["seconds", "took"]];

/** @param {any} context @returns {any} a view */
export function jobsView(context) {
  return chosen().job === undefined ? listView(context) : jobView(context, chosen().job);
}

function listView(context) {
  const { key } = context;
  const before = chosen();
  const wanted = { q: before.q ?? "", state: before.state ?? "", domain: before.domain ?? "", sort: before.sort ?? "", page: Number(before.page) || 1 };
  const filter = element("input", { type: "search", id: "filter", value: wanted.q, placeholder: "id or pattern: iris/*" });
  const states = element("select", {}, ...choices([["", "all"], ...Object.entries(JOB_STATES)], wanted.state));
  const domains = element("select", {}, ...choices([["", "all"], ...(wanted.domain ? [[wanted.domain, wanted.domain]] : [])], wanted.domain));
  const sorts = [["", "order of the script"], ...COLUMNS.flatMap(([name, words]) => [[name, `${words} ↑`], [`-${name}`, `${words} ↓`]])];
  const sorter = element("select", {}, ...choices(sorts, wanted.sort));
  const told = element("p", { class: "note", role: "status" });
  const place = element("div");
  const [first, last] = ["← before", "next →"].map((text, at) => button(text, () => choose({ page: wanted.page + (at ? 1 : -1) })));
  const pager = element("div", { class: "tools" }, first, last);
  let document = null;

  const choose = (changes) => {
    Object.assign(wanted, { page: 1 }, changes);
    keep({ ...wanted, page: wanted.page > 1 ? wanted.page : "" });
    sorter.value = wanted.sort;
    load().catch(context.failed);
  };
  let typed = 0;
  filter.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(() => choose({ q: filter.value }), 150);
  });
  states.addEventListener("change", () => choose({ state: states.value }));
  domains.addEventListener("change", () => choose({ domain: domains.value }));
  sorter.addEventListener("change", () => choose({ sort: sorter.value }));

  const head = ([name, words], at) => sortHead(name, words, wanted.sort, at > 2, choose);
  const row = (one) => {
    const cells = [
      ["job", link({ x: key, p: "jobs", job: one.id }, plain(one.id), { "data-row": one.id })],
      ["state", JOB_STATES[one.state] + (one.outcome && one.state !== "completed" ? `: ${one.outcome.replaceAll("_", " ")}` : "") + (one.worker === undefined ? "" : `, worker ${one.worker}`), one.state],
      ["domain", plain(one.domain ?? "")],
      ["attempts", one.attempts_total ? String(one.attempts_total) : "", "number"],
      ["took", one.since && one.state === "in_progress" ? `${duration(Date.now() / 1000 - Date.parse(one.since) / 1000)} so far` : one.seconds === null ? "" : duration(one.seconds), "number"],
    ];
    return element("tr", {}, ...cells.map(([label, content, kind]) => element("td", { "data-label": label, class: kind ?? null }, ...(content === "" ? [] : [content]))));
  };
  const draw = () => {
    wanted.page = document.page;
    told.textContent = `${counted(document.total, "job")}${document.pages > 1 ? `, page ${document.page} of ${grouped(document.pages)}` : ""}${document.complete ? "" : " (the journal is still being read)"}`;
    pager.hidden = document.pages < 2;
    first.disabled = document.page <= 1;
    last.disabled = document.page >= document.pages;
    const names = document.domains.includes(wanted.domain) || !wanted.domain ? document.domains : [wanted.domain, ...document.domains];
    if (domains.options.length !== names.length + 1) domains.replaceChildren(...choices([["", "all"], ...names.map((name) => [name, plain(name)])], wanted.domain));
    domains.parentElement.hidden = !names.length;
    const table = cardTable("Jobs", element("tr", {}, ...COLUMNS.map(head)), element("tbody", {}, ...document.jobs.map(row)));
    keepingFocus(place, () => place.replaceChildren(scroller("jobs", table)));
  };
  let asked = 0;
  const load = async () => {
    const number = ++asked;
    const found = await ask(`x/${key}/jobs`, { ...wanted, page: wanted.page > 1 ? wanted.page : "" });
    if (number !== asked || (found === document && found.page === wanted.page && !context.live.live)) return;
    document = found;
    draw();
  };
  const tools = element("div", { class: "tools" }, labelled("filter", filter), labelled("state", states), labelled("domain", domains), labelled("sort by", sorter));
  return { parts: [tools, told, pager, place], tick: load, close: () => clearTimeout(typed) };
}

// ------------------------------------------------------------------------------ one job

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 1);
  } catch {
    return text; // cut, or with a number that JSON does not have
  }
}

function attemptRow(one) {
  return [
    one.attempt ? String(one.attempt) : "",
    one.outcome.replaceAll("_", " "),
    timeWords(one.started || one.handed_out),
    one.seconds === null ? "" : duration(one.seconds),
    one.worker === null ? "" : `${one.worker}${one.place ? ` on ${plain(one.place)}` : ""}`,
    one.peak_rss ? memorySize(one.peak_rss / 2 ** 20) : "",
    String(one.run),
  ];
}

function errorOf(one) {
  const error = one.error;
  if (!error) return [];
  const parts = [element("h3", { text: `${one.attempt ? `Attempt ${one.attempt}` : "An attempt"}: ${plain([error.type, error.where].filter(Boolean).join(" ") || one.outcome.replaceAll("_", " "))}` })];
  if (error.message) parts.push(element("p", { text: plain(error.message) }));
  if (error.traceback) parts.push(element("pre", { text: plain(error.traceback) }));
  return parts;
}

function jobView(context, id) {
  const { key } = context;
  const place = element("div");
  const output = textFollower(context, `x/${key}/output`, { id }, "It has printed nothing so far.");
  let document = null;
  const draw = () => {
    const one = document;
    const buttons = element("div", { class: "tools" });
    const act = (text, name) => buttons.append(button(text, () => order(context, name, { jobs: [id] })));
    if (context.live.orders && one.state === "failed") act("Retry", "retry");
    if (context.live.orders && ["in_progress", "pending"].includes(one.state)) act("Cancel…", "cancel");
    const attempts = one.attempts.length ? [cards("Attempts", ["attempt", "outcome", "began", "took", "worker", "peak memory", "run"], one.attempts.map(attemptRow), new Set([0, 3, 5, 6]))] : notes("It has not been started.");
    const gone = one.complete ? [] : notes("Earlier attempts are no longer in the journal, which was written anew.");
    const errors = one.attempts.filter((attempt) => attempt.error).reverse();
    place.replaceChildren(
      element("h2", { text: plain(one.id) }),
      element("p", { class: `state ${one.state}`, text: [JOB_STATES[one.state], one.domain ? `domain ${plain(one.domain)}` : "", one.in_plan ? "" : "no longer in the script's plan"].filter(Boolean).join(", ") }),
      buttons,
      ...attempts,
      ...gone,
      ...errors.flatMap(errorOf),
      element("h3", { text: "Parameters" }),
      element("pre", { text: plain(pretty(one.params)) }),
      ...(one.result === null ? [] : [element("h3", { text: "Result" }), element("pre", { text: plain(pretty(one.result)) })]),
    );
  };
  return {
    parts: [element("p", {}, link({ x: key, p: "jobs" }, "← all jobs")), place, element("h3", { text: "Output" }), ...output.parts],
    async tick() {
      const found = await ask(`x/${key}/job`, { id });
      const steerable = context.live.orders;
      if (found !== document || steerable !== this.steerable) {
        document = found;
        this.steerable = steerable;
        draw();
      }
      await output.tick();
    },
  };
}
