// Curves over the time axis: throughput, workers at work, the expected end, memory. Drawn by uPlot.

import { asTable, element, redrawn, themeColour } from "./elements.mjs";
import { counted, duration, memorySize, plainNumber, rounded, sum } from "./words.mjs";

const WINDOW = 600; // seconds over which the pace is averaged
const DOUBLING = Array.from({ length: 26 }, (_, power) => 2 ** (power - 2)); // steps of an axis of megabytes
const PALETTE = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c7"];

/** @param {HTMLElement} place @param {any} timeline @param {import("./time_axis.mjs").ShownRange} shown @param {any} counts */
export function drawSeries(place, timeline, shown, counts) {
  const { series } = timeline;
  if (series.t.length) {
    place.append(throughput(series, shown));
    const ends = expectedEnds(timeline, counts);
    if (ends.t.length > 1) place.append(endTime(ends, timeline, shown));
    place.append(concurrency(series, shown));
  }
  if (timeline.memory.t.length) place.append(...memory(timeline, shown));
  else if (Object.keys(timeline.peaks).length) place.append(peaks(timeline));
}

/** Bins taken together, so that a curve of few attempts is no comb. @param {any} series @returns {any} */
function smoother(series) {
  const total = sum(series.ended);
  const factor = Math.max(1, Math.min(Math.ceil((8 * series.t.length) / Math.max(1, total)), Math.floor(series.t.length / 40)));
  const width = series.width * factor;
  const found = { width, t: [], ended: [], failed: [] };
  series.t.forEach((at, index) => {
    const start = Math.floor(at / width) * width;
    if (found.t.at(-1) !== start) {
      found.t.push(start);
      found.ended.push(0);
      found.failed.push(0);
    }
    found.ended[found.t.length - 1] += series.ended[index];
    found.failed[found.t.length - 1] += series.failed[index];
  });
  return found;
}

/** The times of bins. @returns {number[]} */
const middles = (series) => series.t.map((at) => at + series.width / 2);

function throughput(all, shown) {
  const series = smoother(all);
  const scale = series.width < 60 && Math.max(...series.ended) / series.width >= 5 ? 1 : 60;
  const unit = scale === 1 ? "second" : "minute";
  const per = (values) => values.map((value) => (value / series.width) * scale);
  const total = sum(series.ended);
  const failed = sum(series.failed);
  const best = Math.max(...per(series.ended));
  const summary = `${counted(total, "attempt")} ended, ${counted(failed, "failed", "failed")}; at most ${rounded(best, 3)} in a ${unit}.`;
  const curves = [
    { label: `ended a ${unit}`, colour: "--c0", values: per(series.ended), fill: true },
    { label: "failed", colour: "--bad", values: per(series.failed), dash: [4, 3] },
  ];
  return chart(`Jobs per ${unit}`, summary, middles(series), curves, shown, plainNumber, series.width);
}

function concurrency(series, shown) {
  const most = Math.max(...series.busy);
  const summary = `At most ${plainNumber(Number(most.toFixed(1)))} workers were busy at once, on average over ${duration(series.width)}.`;
  const curves = [{ label: "busy workers", colour: "--c2", values: series.busy, fill: true }];
  return chart("Workers at work", summary, middles(series), curves, shown, plainNumber, series.width);
}

/** When the end was to be expected at each moment, by the pace of the last ten minutes.
 * @returns {{t: number[], ends: number[]}} seconds since the origin */
export function expectedEnds(timeline, counts) {
  const { series } = timeline;
  const total = counts.completed + counts.failed + counts.left;
  const found = { t: [], ends: [] };
  let done = 0;
  let first = 0;
  let inWindow = 0;
  for (let index = 0; index < series.t.length; index++) {
    const at = series.t[index] + series.width;
    done += series.ended[index];
    inWindow += series.ended[index];
    while (series.t[first] < at - Math.max(WINDOW, 10 * series.width)) inWindow -= series.ended[first++];
    const seconds = at - Math.max(series.t[first], at - WINDOW);
    const left = Math.max(0, total - done);
    const enough = done >= Math.min(10, total / 20); // the first few tell nothing
    if (inWindow > 0 && seconds > 0 && index > 1 && enough) {
      found.t.push(at);
      found.ends.push(at + (left * seconds) / inWindow);
    }
  }
  return found;
}

function endTime(ends, timeline, shown) {
  const last = ends.ends.at(-1);
  const close = Math.max(...ends.ends) - Math.min(...ends.ends) < 600;
  const words = (value) => shown.axis.shortWords(value, close);
  const summary = `At the end the last job was expected for ${words(last)}. A flat line: the estimate held; a rising one: it was late.`;
  const curves = [{ label: "expected end", colour: "--c1", values: ends.ends }];
  return chart("When the end was expected", summary, ends.t, curves, shown, words, timeline.series.width, shown.axis.severalDays() ? 100 : close ? 78 : 60);
}

function memory(timeline, shown) {
  const { t, slots, free, together } = timeline.memory;
  const names = Object.keys(slots);
  const several = names.length > 8;
  const curves = [];
  if (several) {
    const at = (pick) => t.map((_, index) => pick(names.map((name) => slots[name][index]).filter((value) => value !== null)));
    curves.push({ label: "largest worker", colour: "--c3", values: at((values) => (values.length ? Math.max(...values) : null)) });
    curves.push({ label: "all together", colour: "--c0", values: at((values) => (values.length ? sum(values) : null)) });
  } else {
    names.forEach((name, index) => curves.push({ label: `worker ${name}`, colour: PALETTE[index], values: slots[name] }));
  }
  const largest = Object.entries(timeline.peaks).sort((one, other) => other[1] - one[1])[0];
  let summary = largest ? `The largest worker was ${largest[0]}, with ${memorySize(largest[1] / 2 ** 20)}.` : "";
  if (together > 1) summary += ` Each point stands for ${together} samples.`;
  const steps = t.slice(1).map((at, index) => at - t[index]);
  const usual = steps.sort((one, other) => one - other)[Math.floor(steps.length / 2)] ?? Infinity;
  const parts = [chart("Memory of the workers", summary, t, curves, shown, memorySize, 2 * usual, 64, several ? peaksTable(timeline) : null)];
  const known = free.filter((value) => value !== null);
  if (known.length) {
    const least = `The machine had at least ${memorySize(Math.min(...known))} left, whoever took the rest.`;
    parts.push(chart("Memory left on the machine", least, t, [{ label: "free", colour: "--c5", values: free, fill: true }], shown, memorySize, 2 * usual, 64));
  }
  return parts;
}

function peaksTable(timeline) {
  const rows = () => Object.entries(timeline.peaks).map(([slot, bytes]) => [slot, memorySize(bytes / 2 ** 20)]);
  return { heads: ["worker", "largest memory"], rows };
}

function peaks(timeline) {
  const { heads, rows } = peaksTable(timeline);
  const text = "The run was too short for samples over time; what is known are the largest values of workers that have ended.";
  return element("div", { class: "chart" }, element("h3", { text: "Memory of the workers" }), element("p", { class: "note", text }), asTable(heads, rows));
}

function chart(title, summary, times, curves, shown, words, width, room = 56, other = null) {
  const axis = shown.axis;
  const places = [];
  const columns = curves.map(() => []);
  times.forEach((at, index) => {
    const before = times[index - 1];
    const place = axis.place(at);
    if (index && at - before > 1.5 * width) {
      // Nothing happened in between: the curve goes down to nothing, and does not lead over a break.
      places.push(axis.place(before) + (place - axis.place(before)) / 2);
      columns.forEach((column) => column.push(null));
    }
    if (places.length && place <= places.at(-1)) return;
    places.push(place);
    columns.forEach((column, number) => column.push(curves[number].values[index] ?? null));
  });
  const frame = element("div", { class: "canvas" });
  const heading = element("h3", { text: title });
  const rows = () => {
    const step = Math.max(1, Math.ceil(times.length / 200));
    const picked = times.map((_, index) => index).filter((index) => index % step === 0);
    return picked.map((index) => [axis.words(times[index], true), ...curves.map((curve) => (curve.values[index] === null ? "" : words(curve.values[index])))]);
  };
  const note = times.length > 200 ? `${Math.ceil(times.length / Math.ceil(times.length / 200))} of ${times.length} points.` : "";
  const table = other ? asTable(other.heads, other.rows) : asTable(["when", ...curves.map((curve) => curve.label)], rows, note);
  const part = element("div", { class: "chart" }, heading, element("p", { class: "note", text: summary }), frame, table);
  let plot = null;
  const draw = () => {
    plot?.destroy();
    frame.replaceChildren();
    plot = new globalThis.uPlot(options(curves, columns, shown, words, frame, room), [places, ...columns], frame);
    frame.querySelector("canvas").setAttribute("role", "img");
    frame.querySelector("canvas").setAttribute("aria-label", `${title}. ${summary}`);
  };
  redrawn(frame, draw);
  shown.watch(() => plot?.setScale("x", { min: shown.from, max: shown.to }));
  return part;
}

function options(curves, columns, shown, words, frame, room) {
  const colour = themeColour;
  const ticks = (u, from, to) => shown.axis.ticks(from, to, Math.max(2, Math.floor(u.width / 90)));
  const grid = { stroke: colour("--line"), width: 1 };
  const font = "11px system-ui, sans-serif";
  return {
    width: Math.max(200, frame.clientWidth),
    height: 170,
    scales: { x: { time: false, min: shown.from, max: shown.to, auto: false }, y: { range: (_, low, high) => range(low, high) } },
    legend: { live: true },
    cursor: { drag: { x: true, y: false, setScale: false }, points: { size: 5 } },
    hooks: {
      setSelect: [
        (u) => {
          if (u.select.width < 5) return;
          shown.set(u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x"));
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        },
      ],
    },
    axes: [
      {
        stroke: colour("--muted"),
        grid: { show: false },
        ticks: grid,
        font,
        splits: (u, _, from, to) => ticks(u, from, to).map((tick) => tick.place),
        values: (u, splits) => {
          const known = new Map(ticks(u, shown.from, shown.to).map((tick) => [tick.place, tick.label]));
          return splits.map((place) => known.get(place) ?? "");
        },
      },
      { stroke: colour("--muted"), grid, ticks: grid, font, size: room, incrs: words === memorySize ? DOUBLING : undefined, values: (_, splits) => splits.map((value) => (value === null ? "" : words(value))) },
    ],
    series: [
      { label: "time", value: (_, place) => (place === null ? "" : shown.axis.words(shown.axis.time(place), true)) },
      ...curves.map((curve, index) => ({
        label: curve.label,
        stroke: colour(curve.colour),
        width: 1.5,
        dash: curve.dash,
        fill: curve.fill ? `${colour(curve.colour)}33` : undefined,
        points: { show: columns[index].length < 3 },
        value: (_, value) => (value == null ? "" : words(value)),
      })),
    ],
  };
}

function range(low, high) {
  if (low === null || high === null) return [0, 1];
  if (low >= 0 && low < high * 0.6) return [0, high * 1.08 || 1];
  const more = (high - low || Math.abs(high) || 1) * 0.08;
  return [low - more, high + more];
}
