// Who works at what, how fast it goes, when it ends, and which domains fail.

import { link } from "./address.mjs";
import { plain } from "./api.mjs";
import { button, copy, element, notes } from "./elements.mjs";
import { bar, cards, endWords } from "./glance.mjs";
import { counted, duration, grouped, memorySize, plainNumber, rounded } from "./words.mjs";

const MB = 2 ** 20;

function numbersOf(live) {
  const { counts } = live;
  const rate = live.rate ? (live.rate >= 1 ? `${rounded(live.rate, 3)}/s` : `${rounded(live.rate * 60, 3)}/min`) : "";
  const ends = endWords(live.eta_seconds).replace(/^ends /, "").split(", in ");
  return [
    ["completed", grouped(counts.completed)],
    [counts.failed ? "✗ failed" : "failed", grouped(counts.failed), counts.failed ? "bad" : ""],
    ["running", live.live ? grouped(counts.in_progress) : ""],
    [live.live ? "waiting" : "left", grouped(live.live ? counts.pending : counts.left)],
    ["jobs ended", rate],
    [ends[1] ? `ends, in ${ends[1]}` : "ends", ends[0]],
    ["this run so far", live.elapsed_seconds && live.live ? duration(live.elapsed_seconds) : ""],
    ["attempts that ran again", live.retries ? plainNumber(live.retries) : ""],
    ["crashes", live.crashes ? plainNumber(live.crashes) : "", "bad"],
    ["timeouts", live.timeouts ? plainNumber(live.timeouts) : "", "bad"],
    ["memory free", live.memory_free ? memorySize(live.memory_free / MB) : ""],
    ["disk free", live.disk_free ? memorySize(live.disk_free / MB) : ""],
    ["time left to finish", live.grace_left != null ? duration(live.grace_left) : "", "bad"],
  ].filter(([, value]) => value !== "");
}

function workerRows(context, workers) {
  const several = workers.some((one) => one.place);
  return workers.map((one) => {
    const metrics = Object.entries(one.metrics ?? {}).map(([name, value]) => `${plain(name)} ${typeof value === "number" ? plainNumber(value) : plain(value)}`);
    const done = typeof one.fraction === "number" ? [`${Math.round(one.fraction * 100)} %`] : [];
    return [
      String(one.worker),
      one.job == null ? element("span", { class: "muted", text: one.status ?? "idle" }) : link({ x: context.key, p: "jobs", job: one.job }, plain(one.job)),
      one.seconds ? duration(one.seconds) : "",
      [...done, ...metrics, ...(one.slow ? ["slower than others"] : [])].join(", "),
      one.rss_bytes ? memorySize(one.rss_bytes / MB) : "",
      one.job ? `${Math.round(one.cpu_percent ?? 0)} %` : "",
      ...(several ? [plain(one.place ?? "")] : []),
    ];
  });
}

const NODE_HEADS = ["node", "workers", "busy", "load", "CPU", "memory", "last heard of"];

function nodesOf(nodes) {
  return (nodes ?? []).map((one) => [
    plain(one.node),
    `${one.workers} of ${one.slots}`,
    String(one.busy),
    one.load === null ? "" : `${one.load.toFixed(2)} of ${one.cores}`,
    one.cpu_percent === null ? "" : `${Math.round(one.cpu_percent)} %`,
    one.memory_total === null ? "" : `${memorySize(one.memory_used / MB)} of ${memorySize(one.memory_total / MB)}`,
    one.heard_age === null ? "" : `${duration(one.heard_age)} ago`,
  ]);
}

function titled(title, ...table) {
  return [element("h2", { text: title }), cards(title, ...table)];
}

function commandPart(text) {
  const copier = button("copy", () => copy(copier));
  return element("div", { class: "command" }, element("code", { text }), copier);
}

/** @param {any} context @returns {any} a view */
export function overviewView(context) {
  const place = element("div");
  let before = null;
  const draw = (live) => {
    const parts = [];
    if (live.waiting_for) parts.push(element("p", { class: "verdict warning", text: `! Nothing new is handed out: ${plain(live.waiting_for)}` }));
    if (live.trouble) parts.push(element("p", { class: "trouble", text: plain(live.trouble) }));
    const items = numbersOf(live).map(([name, value, kind]) => element("li", { class: kind || null }, element("b", { text: value }), element("span", { text: name })));
    parts.push(element("ul", { class: "numbers" }, ...items));
    if (live.unselected) parts.push(...notes(`${counted(live.unselected, "job")} are left out of this run by --only.`));
    if (live.failure_groups) parts.push(element("p", {}, link({ x: context.key, p: "failures" }, `${counted(live.failure_groups, "kind")} of failure so far`)));
    if (live.state === "died") parts.push(element("p", { class: "verdict bad", text: "✗ Its supervisor was killed, or the machine went down. What is recorded is safe." }));
    const { command, directory } = live.resume;
    if (command) parts.push(element("p", { text: `To go on with the ${counted(live.counts.left, "job")} left, in ${plain(directory)}:` }), commandPart(command));
    const nodes = nodesOf(live.nodes);
    if (nodes.length) parts.push(...titled("Nodes", NODE_HEADS, nodes, new Set([1, 2, 3, 4, 5, 6])));
    if (live.workers.length) {
      const heads = ["worker", "job", "for", "how far", "memory", "CPU", ...(nodes.length ? ["node"] : [])];
      parts.push(...titled("Workers", heads, workerRows(context, live.workers), new Set([2, 4, 5])));
    }
    if (live.domains.length) {
      const rows = live.domains.map((one) => [
        link({ x: context.key, p: "jobs", domain: one.domain }, plain(one.domain)),
        bar(one),
        grouped(one.completed),
        one.failed ? link({ x: context.key, p: "jobs", domain: one.domain, state: "failed" }, `✗ ${grouped(one.failed)}`) : "",
        grouped(one.total),
      ]);
      parts.push(...titled("Domains", ["domain", "how far", "completed", "failed", "jobs"], rows, new Set([2, 3, 4])));
      if (live.domains.length < live.domains_total) parts.push(...notes(`${live.domains.length} of ${grouped(live.domains_total)} domains: those with the most failures.`));
    }
    const needs = live.needs && Object.entries({ cores: live.needs.cpus, GPUs: live.needs.gpus, ...live.needs.resources }).filter(([, pair]) => pair);
    if (needs?.length) parts.push(...notes(`Given to running jobs: ${needs.map(([name, pair]) => `${pair[0]} of ${pair[1]} ${name}`).join(", ")}.`));
    place.replaceChildren(...parts, element("p", { class: "note", text: `Files: ${plain(live.directory)}` }));
  };
  return {
    parts: [place],
    tick() {
      if (context.live === before || place.contains(document.activeElement) && ["A", "BUTTON"].includes(document.activeElement.tagName)) return;
      before = context.live;
      draw(context.live);
    },
  };
}
