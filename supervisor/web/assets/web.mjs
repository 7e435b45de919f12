// The page: what stands above every view, which view it is, when the server is asked, and the keys.

import { chosen, go, link, onMove } from "./address.mjs";
import { AskError, ask, keepToken, plain, takeToken } from "./api.mjs";
import { element, keepingFocus, labelled, notes } from "./elements.mjs";
import { experimentsView } from "./experiments.mjs";
import { failuresView } from "./failures.mjs";
import { bar, endWords, progressWords, stateOf, stateWord } from "./glance.mjs";
import { jobsView } from "./jobs.mjs";
import { logView } from "./log.mjs";
import { dialog, orderButtons } from "./orders.mjs";
import { overviewView } from "./overview.mjs";
import { duration, grouped } from "./words.mjs";

/** A view whose modules are loaded when it is wanted: they are most of the page.
 * @param {() => Promise<any>} load @param {string} name @returns {(context: any) => any} */
const later = (load, name) => (given) => {
  const place = element("div", {}, ...notes("Loading …"));
  let inner = null;
  return {
    parts: [place],
    async tick() {
      if (!inner) {
        inner = (await load())[name](given);
        place.replaceChildren(...inner.parts);
      }
      await inner.tick();
    },
    close: () => inner?.close?.(),
  };
};

const PAGES = [
  ["", "Overview", overviewView],
  ["jobs", "Jobs", jobsView],
  ["failures", "Failures", failuresView],
  ["timeline", "Timeline", later(() => import("./timeline.mjs"), "timelineView")],
  ["results", "Results", later(() => import("./results.mjs"), "resultsView")],
  ["log", "Log", logView],
];
const EVERY = 1000; // milliseconds
const HIDDEN = 10_000;
const OVER = 3000; // a resume begins without a word to this page
const KEYS = [["1 to 6", "the pages"], ["/", "the filter"], ["j, k", "next and previous row"], ["Enter", "open the row"], ["g", "the list of experiments"], ["?", "this list"]];

const header = element("header");
const nav = element("nav", { "aria-label": "pages" });
const connection = element("p", { id: "connection", class: "trouble", role: "status", hidden: true });
const main = element("main");
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
let [view, timer, lost, turn] = [null, 0, 0, 0];

const context = {
  key: "",
  live: null,
  /** Ask the server at once. */
  soon: () => schedule(50),
  failed,
};

function failed(error) {
  if (!(error instanceof AskError)) {
    console.error(error);
    tell(`This part could not be drawn: ${error.message}`);
  } else if (error.status === 401) {
    askToken();
  } else if (error.status === 0) {
    lost ||= Date.now();
    tell(`The server has not answered for ${duration((Date.now() - lost) / 1000)}: ${error.hint}. What is shown is as old; asking again …`);
  } else {
    tell([error.message, error.hint].filter(Boolean).join(" — "));
  }
}

function tell(text) {
  connection.hidden = !text;
  if (connection.textContent !== text) connection.textContent = text;
}

function askToken() {
  clearTimeout(timer);
  const box = element("input", { type: "password", id: "token", autocomplete: "off" });
  const submit = (event) => {
    event.preventDefault();
    keepToken(box.value);
    location.reload();
  };
  const words = "This tab has no token of the server that runs now: open the address that longhaul web printed, or paste it here.";
  header.replaceChildren();
  nav.replaceChildren();
  main.replaceChildren(element("form", { submit }, element("h1", { text: "longhaul" }), element("p", { text: words }), labelled("address or token", box), element("button", { type: "submit", text: "Open" })));
  document.documentElement.dataset.ready = "yes";
}

// -------------------------------------------------------------------------------- shown

function show() {
  view?.close?.();
  const { x, p } = chosen();
  if (x !== context.key) context.live = null;
  context.key = x ?? "";
  turn += 1;
  tell("");
  document.getElementById("said").replaceChildren();
  view = context.key ? (PAGES.find(([name]) => name === (p ?? "")) ?? PAGES[0])[2](context) : experimentsView();
  main.replaceChildren(...view.parts);
  if (!context.key) {
    header.replaceChildren();
    nav.replaceChildren();
    document.title = "longhaul";
  }
  scrollTo(0, 0);
  schedule(0);
}

let drawn = "";

function drawHead() {
  const { live, key } = context;
  const { glyph } = stateOf(live.state, live.counts);
  document.title = `${glyph} ${progressWords(live.counts)} ${plain(live.name)} ${live.id}`;
  const words = [live.live && live.elapsed_seconds ? duration(live.elapsed_seconds) : "", endWords(live.eta_seconds), `${live.complete ? "" : "≥ "}${progressWords(live.counts)}`].filter(Boolean).join(" · ");
  const told = header.querySelector(".far");
  const here = JSON.stringify([key, live.state, live.orders, live.name, live.counts.failed > 0]);
  if (here === drawn && told) {
    told.textContent = words;
    header.querySelector("svg")?.replaceWith(bar(live.counts));
  } else {
    drawn = here;
    const title = element("h1", {}, plain(live.name), " ", element("span", { class: "muted", text: live.id }));
    const state = element("p", { class: "glance" }, stateWord(live.state, live.counts), " ", element("span", { class: "far", text: words }));
    const back = element("p", {}, link({}, "Experiments", { class: "back" }));
    keepingFocus(header, () => header.replaceChildren(back, title, state, bar(live.counts), orderButtons(context)));
  }
  const page = chosen().p ?? "";
  const labels = PAGES.map(([name, label]) => (name === "failures" && live.counts.failed ? `${label} ${grouped(live.counts.failed)}` : label));
  if (nav.dataset.drawn === labels.join() + page + key) return;
  nav.dataset.drawn = labels.join() + page + key;
  keepingFocus(nav, () => nav.replaceChildren(...PAGES.map(([name], at) => link({ x: key, p: name }, labels[at], name === page ? { "aria-current": "page" } : {}))));
}

// -------------------------------------------------------------------------------- asked

function schedule(after) {
  clearTimeout(timer);
  timer = setTimeout(tick, after);
}

async function tick() {
  const mine = turn;
  try {
    if (context.key) {
      const live = await ask(`x/${context.key}/live`);
      if (mine !== turn) return;
      context.live = live;
      drawHead();
    }
    await view.tick();
    if (mine !== turn) return;
    lost = 0;
    tell("");
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    if (mine !== turn) return;
    failed(error);
    if (error.status === 401) return;
  }
  const over = context.key && context.live?.over && !lost;
  if (!document.hidden) schedule(over && context.live.complete ? OVER : EVERY);
  else if (!over) schedule(HIDDEN);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) schedule(0);
});

// --------------------------------------------------------------------------------- keys

function rows() {
  return [...main.querySelectorAll("[data-row]")];
}

function step(by) {
  const all = rows();
  const at = all.indexOf(document.activeElement);
  all[Math.min(Math.max(0, at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by), all.length - 1)]?.focus();
}

document.addEventListener("keydown", (event) => {
  const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName) && event.target.type !== "checkbox";
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const page = PAGES[Number(event.key) - 1];
  if (page && context.key) go({ x: context.key, p: page[0] });
  else if (event.key === "/") (document.getElementById("filter") ?? document.getElementById("find"))?.focus();
  else if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
  else if (event.key === "g") go({});
  else if (event.key === "?") dialog("Keys", [element("dl", { class: "about" }, ...KEYS.flatMap(([key, words]) => [element("dt", { text: key }), element("dd", { text: words })]))]);
  else return;
  event.preventDefault();
});

document.body.replaceChildren(header, nav, element("div", { id: "said", role: "status" }), connection, main, element("footer", {}, ...notes(`? shows the keys · times are those of ${zone}`)));
document.documentElement.classList.add("drawn");
onMove(show);
if (takeToken()) show();
else askToken();
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#t=") && takeToken()) location.reload();
});
