// Who works at what, how fast it goes, when it ends, and which domains fail.

import { link } from "./address.mjs";
import { plain } from "./api.mjs";
import { element, notes } from "./elements.mjs";
import { bar, cards, endWords } from "./glance.mjs";
import { counted, duration, memorySize, plainNumber } from "./words.mjs";

const MB = 2 ** 20;

function numbersOf(live) {
  const { counts } = live;
  const rate = live.rate ? (live.rate >= 1 ? `${plainNumber(Number(live.rate.toPrecision(3)))}/s` : `${plainNumber(Number((live.rate * 60).toPrecision(3)))}/min`) : "";
  const ends = endWords(live.eta_seconds).replace(/^ends /, "").split(", in ");
  return [
    ["completed", counts.completed.toLocaleString("en-US")],
    [counts.failed ? "✗ failed" : "failed", counts.failed.toLocaleString("en-US"), counts.failed ? "bad" : ""],
    ["running", live.live ? counts.in_progress.toLocaleString("en-US") : ""],
    [live.live ? "waiting" : "left", (live.live ? counts.pending : counts.left).toLocaleString("en-US")],
    ["jobs ended", rate],
    [ends[1] ? `ends, in ${ends[1]}` : "ends", ends[0]],
    ["this run so far", live.elapsed_seconds && live.live ? duration(live.elapsed_seconds) : ""],
    ["attempts that ran again", live.retries ? plainNumber(live.retries) : ""],
    ["crashes", live.crashes ? plainNumber(live.crashes) : "", "bad"],
    ["timeouts", live.timeouts ? plainNumber(live.timeouts) : "", "bad"],
    ["memory free", live.memory_free ? memorySize(live.memory_free / MB) : ""],
    ["disk free", live.disk_free ? memorySize(live.disk_free / MB) : ""],
    ["time left to finish", live.grace_left !== null && live.grace_left !== undefined ? duration(live.grace_left) : "", "bad"],
  ].filter(([, value]) => value !== "");
}

function workerRows(context, workers) {
  const several = workers.some((one) => one.place);
  return workers.map((one) => {
    const metrics = Object.entries(one.metrics ?? {}).map(([name, value]) => `${plain(name)} ${typeof value === "number" ? plainNumber(value) : plain(value)}`);
    const done = typeof one.fraction === "number" ? [`${Math.round(one.fraction * 100)} %`] : [];
    return [
      String(one.worker),
      one.job === null || one.job === undefined ? element("span", { class: "muted", text: one.status ?? "idle" }) : link({ x: context.key, p: "jobs", job: one.job }, plain(one.job)),
      one.seconds ? duration(one.seconds) : "",
      [...done, ...metrics, ...(one.slow ? ["slower than others"] : [])].join(", "),
      one.rss_bytes ? memorySize(one.rss_bytes / MB) : "",
      one.job ? `${Math.round(one.cpu_percent ?? 0)} %` : "",
      ...(several ? [plain(one.place ?? "")] : []),
    ];
  });
}

function nodesOf(workers) {
  const found = new Map();
  for (const one of workers) {
    if (!one.place) continue;
    const node = found.get(one.place) ?? { workers: 0, busy: 0, rss: 0 };
    node.workers += 1;
    node.busy += one.job ? 1 : 0;
    node.rss += one.rss_bytes ?? 0;
    found.set(one.place, node);
  }
  return [...found].map(([name, node]) => [plain(name), String(node.workers), String(node.busy), memorySize(node.rss / MB)]);
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
    if (live.state === "died") parts.push(element("p", { class: "verdict bad", text: "✗ Its supervisor was killed, or the machine went down. What is recorded is safe; its script (or longhaul exec) resumes it with --resume " + plain(live.id) }));
    if (live.workers.length) {
      const nodes = nodesOf(live.workers);
      const heads = ["worker", "job", "for", "how far", "memory", "CPU", ...(nodes.length ? ["node"] : [])];
      if (nodes.length) parts.push(element("h2", { text: "Nodes" }), cards("Nodes", ["node", "workers", "busy", "memory"], nodes, new Set([1, 2, 3])));
      parts.push(element("h2", { text: "Workers" }), cards("Workers", heads, workerRows(context, live.workers), new Set([2, 4, 5])));
    }
    if (live.domains.length) {
      const rows = live.domains.map((one) => [
        link({ x: context.key, p: "jobs", domain: one.domain }, plain(one.domain)),
        bar(one),
        one.completed.toLocaleString("en-US"),
        one.failed ? link({ x: context.key, p: "jobs", domain: one.domain, state: "failed" }, `✗ ${one.failed.toLocaleString("en-US")}`) : "",
        one.total.toLocaleString("en-US"),
      ]);
      parts.push(element("h2", { text: "Domains" }), cards("Domains", ["domain", "how far", "completed", "failed", "jobs"], rows, new Set([2, 3, 4])));
      if (live.domains.length < live.domains_total) parts.push(...notes(`${live.domains.length} of ${live.domains_total.toLocaleString("en-US")} domains: those with the most failures.`));
    }
    const needs = live.needs && Object.entries({ cores: live.needs.cpus, GPUs: live.needs.gpus, ...live.needs.resources }).filter(([, pair]) => pair);
    if (needs?.length) parts.push(...notes(`Given to running jobs: ${needs.map(([name, pair]) => `${pair[0]} of ${pair[1]} ${name}`).join(", ")}.`));
    place.replaceChildren(...parts, element("p", { class: "note", text: `Files: ${plain(live.directory)}` }));
  };
  return {
    parts: [place],
    tick() {
      if (context.live === before || place.contains(document.activeElement) && document.activeElement.tagName === "A") return;
      before = context.live;
      draw(context.live);
    },
  };
}
