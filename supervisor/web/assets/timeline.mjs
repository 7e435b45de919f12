// The timeline: the pictures of the report, with more detail for the part that is looked at.

import { chosen, go, keep } from "./address.mjs";
import { ask } from "./api.mjs";
import { element, notes } from "./elements.mjs";
import { drawLanes } from "./lanes.mjs";
import { drawSeries } from "./series.mjs";
import { ShownRange, TimeAxis } from "./time_axis.mjs";

const EVERY = 4000; // milliseconds between two looks at a live run
const SETTLED = 350;

/** The library that draws the curves. @returns {Promise<void>} */
function library() {
  if (globalThis.uPlot) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const script = element("script", { src: "assets/vendor/uPlot.iife.min.js", load: resolve, error: () => reject(new Error("the library for curves cannot be loaded")) });
    document.head.append(script);
  });
}

/** @param {any} context @returns {any} a view */
export function timelineView(context) {
  const { key } = context;
  const lanesPlace = element("div", { id: "lanes" });
  const seriesPlace = element("div", { class: "charts" });
  const told = element("div", { role: "status" });
  let shown = null;
  let view = null;
  let origin = 0;
  let drawnAt = 0;
  let before = [];
  let timer = 0;

  const range = () => {
    const { from, to } = chosen();
    return from && to ? { from: Number(from), to: Number(to) } : {};
  };
  const width = () => Math.min(4000, Math.max(100, Math.round(lanesPlace.clientWidth || 800)));

  /** Bins as fine as the part that is shown needs them. */
  const refine = async () => {
    if (shown.isWhole()) keep({ from: "", to: "" });
    else keep({ from: (origin + shown.axis.time(shown.from)).toFixed(3), to: (origin + shown.axis.time(shown.to)).toFixed(3) });
    const found = await ask(`x/${key}/timeline`, { ...range(), width: width() });
    view?.show(found.lanes);
  };
  const draw = (timeline, series, wanted) => {
    const whole = { ...timeline, ...series };
    origin = timeline.origin;
    told.replaceChildren(...notes(timeline.complete ? "" : "The journal is still being read: there is more to come."));
    if (!timeline.pieces.length || !timeline.slots.length) {
      lanesPlace.replaceChildren(...notes("No job has been run yet."));
      seriesPlace.replaceChildren();
      return;
    }
    shown = new ShownRange(new TimeAxis(timeline.pieces, timeline.origin));
    if (wanted.from) shown.set(shown.axis.place(wanted.from - origin), shown.axis.place(wanted.to - origin));
    lanesPlace.replaceChildren();
    seriesPlace.replaceChildren();
    view = drawLanes(lanesPlace, whole, timeline.lanes, shown);
    view.onOpen = (id) => go({ x: key, p: "jobs", job: id });
    if (whole.series.t.length) drawSeries(seriesPlace, whole, shown, context.live.counts);
    shown.watch(() => {
      clearTimeout(timer);
      timer = setTimeout(() => refine().catch(context.failed), SETTLED);
    });
  };
  return {
    parts: [told, element("h2", { text: "Workers" }), lanesPlace, element("h2", { text: "Curves" }), seriesPlace],
    async tick() {
      const used = lanesPlace.contains(document.activeElement) || seriesPlace.contains(document.activeElement);
      const zoomed = shown !== null && !shown.isWhole();
      if (drawnAt && (performance.now() - drawnAt < EVERY || used || zoomed)) return;
      const wanted = range();
      const query = { ...wanted, width: width() };
      const [timeline, series] = await Promise.all([ask(`x/${key}/timeline`, query), ask(`x/${key}/series`, { width: width() }), library()]);
      drawnAt = performance.now();
      if (timeline === before[0] && series === before[1]) return;
      before = [timeline, series];
      draw(timeline, series, wanted);
    },
    close: () => clearTimeout(timer),
  };
}
