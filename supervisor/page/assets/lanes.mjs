// A lane for each worker over time: attempts, or bins of them; above it marks for runs, pauses, orders and losses.

import { asTable, button, element, filled, line, notes, picture, redrawn, sharpCanvas, showTip, themeColour, write } from "./elements.mjs";
import { counted, duration, sum } from "./words.mjs";

const LEFT = 34;
const TOP = 26;
const BOTTOM = 20;
const NODE = 15;
const OUTCOME_COLOURS = ["--lane-good", "--lane-bad", "--lane-again", "--lane-cut", "--lane-lost", "--lane-running"];
const OUTCOME_GLYPHS = ["✓", "✗", "↻", "‖", "?", "●"];

/** @param {HTMLElement} place @param {any} timeline @param {any} lanes @param {import("./time_axis.mjs").ShownRange} shown
 * @returns {LanesView} whose `onOpen`, if it is set, is called with the id of a job that is to be opened */
export function drawLanes(place, timeline, lanes, shown) {
  const view = new LanesView(timeline, lanes, shown);
  place.append(...view.parts());
  redrawn(view.frame, () => view.draw());
  shown.watch(() => view.draw());
  return view;
}

class LanesView {
  constructor(timeline, lanes, shown) {
    this.timeline = timeline;
    this.lanes = lanes;
    this.shown = shown;
    this.axis = shown.axis;
    this.singly = "job" in lanes;
    this.selected = -1;
    this.onOpen = null;
    this.rows = new Map(timeline.slots.map((slot, index) => [slot, index]));
    this.laneHeight = Math.max(5, Math.min(22, Math.floor(420 / Math.max(1, timeline.slots.length))));
    this.place = [];
    let top = TOP;
    timeline.slots.forEach((slot, index) => {
      if (this.beginsNode(index)) top += NODE;
      this.place.push(top);
      top += this.laneHeight;
    });
    this.height = top + BOTTOM;
    Object.assign(this, picture());
    this.canvas.setAttribute("aria-label", this.summary());
    this.listen();
  }

  node(index) {
    return this.timeline.nodes[this.timeline.slots[index]] ?? "";
  }

  beginsNode(index) {
    return this.node(index) !== "" && (index === 0 || this.node(index) !== this.node(index - 1));
  }

  /** What the picture shows, in words. */
  summary() {
    const { runs, pauses, marks, slots, series } = this.timeline;
    const ended = sum(series.ended);
    const losses = marks.filter((mark) => mark.kind === "worker").length;
    const parts = [counted(slots.length, "worker"), counted(runs.length, "run"), counted(ended, "attempt")];
    if (pauses.length) parts.push(counted(pauses.length, "pause"));
    if (losses) parts.push(counted(losses, "worker lost", "workers lost"));
    return `Workers over time: ${parts.join(", ")}.`;
  }

  parts() {
    const tool = (text, label, act) => button(text, act, { "aria-label": label, title: label });
    const tools = element(
      "div",
      { class: "tools" },
      tool("+", "show less time, larger", () => this.shown.zoom(0.5)),
      tool("−", "show more time", () => this.shown.zoom(2)),
      tool("←", "earlier", () => this.shown.move(-0.5)),
      tool("→", "later", () => this.shown.move(0.5)),
      tool("all", "show all", () => this.shown.set(0, this.axis.length)),
    );
    this.rangeWords = element("span", { class: "note" });
    tools.append(this.rangeWords);
    const legend = element("p", { class: "legend" });
    const used = this.singly ? new Set(this.lanes.outcome) : new Set([0, 1]);
    this.timeline.outcomes.forEach((name, index) => {
      if (used.has(index)) legend.append(element("span", {}, element("i", { class: `swatch o${index}` }), `${OUTCOME_GLYPHS[index]} ${name}`));
    });
    if (this.timeline.pauses.length) legend.append(element("span", {}, element("i", { class: "swatch pause" }), "paused"));
    const kinds = { worker: "✗ worker lost", order: "▼ order", drain: "◼ being stopped", memory: "▲ short of memory", stall: "◷ used no CPU", rewritten: "≈ journal written anew" };
    for (const [kind, words] of Object.entries(kinds)) {
      if (this.timeline.marks.some((mark) => mark.kind === kind)) legend.append(element("span", { text: words }));
    }
    const more = Object.entries(this.timeline.moreMarks).map(([kind, number]) => `${counted(number, "more mark")} of ${kind}`);
    const bins = this.singly ? "" : `So many attempts that each cell stands for ${duration(this.lanes.width)} of one worker: the darker, the busier; red: failed.`;
    const until = this.unknownUntil();
    const gone = until === null ? "" : `Before ${this.axis.words(until, true)}, hatched: the journal was written anew after damage, and of earlier runs only the last attempt of each finished job is known.`;
    return [tools, this.frame, this.told, legend, ...notes(bins, gone, more.length ? `Not drawn: ${more.join(", ")}.` : ""), this.table()];
  }

  table() {
    const { runs, pauses, marks } = this.timeline;
    const heads = ["when", "what", "worker"];
    const rows = () => {
      const found = [];
      for (const run of runs) {
        const host = run.host ? ` on ${run.host}` : "";
        if (run.start !== null) found.push([run.start, `run ${run.number} began${host}`, ""]);
        found.push([run.end, `run ${run.number} ${this.endOf(run)}`, ""]);
      }
      for (const pause of pauses) found.push([pause.start, `paused for ${duration(pause.end - pause.start)}: ${pause.why} ${pause.detail}`, ""]);
      for (const mark of marks) found.push([mark.at, mark.text, mark.slot < 0 ? "" : String(mark.slot)]);
      found.sort((one, other) => one[0] - other[0]);
      const lines = found.map(([at, what, slot]) => [this.axis.words(at, true), what, slot]);
      const workers = this.timeline.slots.map((slot) => ["whole time", this.workerWords(slot), String(slot)]);
      return [...workers, ...lines];
    };
    return asTable(heads, rows);
  }

  endOf(run) {
    if (run.state === "rewritten") return "as far as it is still known";
    if (run.state) return run.state === "stopped" ? "stopped early" : run.state;
    return this.timeline.now !== null && run === this.timeline.runs.at(-1) ? "goes on" : "died: its last sign of life";
  }

  workerWords(slot) {
    const { lanes } = this;
    let ended = 0;
    let bad = 0;
    let busy = 0;
    lanes.slot.forEach((one, index) => {
      if (one !== slot) return;
      if (this.singly) {
        ended += lanes.outcome[index] < 5;
        bad += lanes.outcome[index] === 1 || lanes.outcome[index] === 2;
        busy += lanes.seconds[index];
      } else {
        ended += lanes.ended[index];
        bad += lanes.failed[index];
        busy += lanes.busy[index];
      }
    });
    const where = this.timeline.nodes[slot] ? `on ${this.timeline.nodes[slot]}: ` : "";
    return `${where}${counted(ended, "attempt")}, ${counted(bad, "failed", "failed")}, busy for ${duration(busy)}`;
  }

  // ------------------------------------------------------------------------- drawing

  x(time) {
    return this.xOf(this.axis.place(time));
  }

  xOf(place) {
    return LEFT + ((place - this.shown.from) / (this.shown.to - this.shown.from)) * (this.width - LEFT - 6);
  }

  placeAt(x) {
    return this.shown.from + ((x - LEFT) / (this.width - LEFT - 6)) * (this.shown.to - this.shown.from);
  }

  draw() {
    const { context, width, height } = sharpCanvas(this.canvas, this.height);
    this.width = width;
    this.rangeWords.textContent = this.shown.isWhole() ? "" : this.shown.words();
    const colour = Object.fromEntries(
      ["--fg", "--muted", "--line", "--card", "--bad", "--warning", ...OUTCOME_COLOURS].map((name) => [name, themeColour(name)]),
    );
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    this.timeline.slots.forEach((slot, row) => {
      const y = this.place[row];
      if (this.beginsNode(row)) {
        write(context, colour["--fg"], "left", this.node(row), LEFT + 4, y - NODE / 2);
      }
      filled(context, colour["--card"], LEFT, y + 1, width - LEFT - 6, this.laneHeight - 2);
      if (this.laneHeight >= 10 || row % Math.ceil(10 / this.laneHeight) === 0) {
        write(context, colour["--muted"], "right", String(slot), LEFT - 5, y + this.laneHeight / 2);
      }
    });
    context.save();
    context.beginPath();
    context.rect(LEFT, 0, width - LEFT - 6, height);
    context.clip();
    this.drawUnknown(context, colour);
    if (this.singly) this.drawAttempts(context, colour);
    else this.drawBins(context, colour);
    this.drawPauses(context, colour);
    this.drawBreaks(context, colour);
    this.drawRuns(context, colour);
    this.drawMarks(context, colour);
    context.restore();
    for (const tick of this.axis.ticks(this.shown.from, this.shown.to, Math.max(2, Math.floor(width / 90)))) {
      const x = this.xOf(tick.place);
      if (x > LEFT + 14 && x < width - 20) write(context, colour["--muted"], "center", tick.label, x, height - BOTTOM / 2);
    }
  }

  drawAttempts(context, colour) {
    const { lanes } = this;
    for (let index = 0; index < lanes.slot.length; index++) {
      const start = this.x(lanes.start[index]);
      const end = this.x(lanes.start[index] + lanes.seconds[index]);
      if (end < LEFT || start > this.width) continue;
      const y = this.place[this.rows.get(lanes.slot[index])];
      const wide = Math.max(1, end - start - (end - start > 3 ? 1 : 0));
      filled(context, colour[OUTCOME_COLOURS[lanes.outcome[index]]], start, y + 1, wide, this.laneHeight - 2);
      const glyph = OUTCOME_GLYPHS[lanes.outcome[index]];
      if (lanes.outcome[index] && wide > 12 && this.laneHeight > 12) write(context, "#fff", "center", glyph, start + wide / 2, y + this.laneHeight / 2);
      if (index === this.selected) this.outline(context, colour, start, y + 1, wide);
    }
  }

  drawBins(context, colour) {
    const { lanes } = this;
    for (let index = 0; index < lanes.slot.length; index++) {
      const start = this.x(lanes.start[index]);
      const end = this.x(lanes.start[index] + lanes.width);
      if (end < LEFT || start > this.width) continue;
      const y = this.place[this.rows.get(lanes.slot[index])] + 1;
      const wide = Math.max(1, end - start);
      const high = this.laneHeight - 2;
      context.globalAlpha = 0.15 + 0.85 * Math.min(1, lanes.busy[index] / lanes.width);
      filled(context, colour["--lane-good"], start, y, wide, high);
      context.globalAlpha = 1;
      if (lanes.failed[index]) {
        const part = Math.max(2, high * (lanes.failed[index] / Math.max(1, lanes.ended[index])));
        filled(context, colour["--lane-bad"], start, y + high - part, Math.max(1.5, wide), part);
      }
      if (index === this.selected) this.outline(context, colour, start, y, wide);
    }
  }

  outline(context, colour, x, y, wide) {
    context.strokeStyle = colour["--fg"];
    context.lineWidth = 2;
    context.strokeRect(x, y, Math.max(3, wide), this.laneHeight - 2);
  }

  hatched(context, from, to, colour) {
    context.save();
    context.beginPath();
    context.rect(from, TOP, Math.max(1, to - from), this.height - TOP - BOTTOM);
    context.clip();
    context.strokeStyle = colour;
    context.lineWidth = 1;
    context.beginPath();
    for (let x = from - this.height; x < to; x += 6) {
      context.moveTo(x, this.height);
      context.lineTo(x + this.height, 0);
    }
    context.stroke();
    context.restore();
  }

  drawPauses(context, colour) {
    for (const pause of this.timeline.pauses) {
      const from = this.x(pause.start);
      const to = this.x(pause.end);
      if (to >= LEFT && from <= this.width) this.hatched(context, from, to, colour["--warning"]);
    }
  }

  /** Where the journal was written anew, what is left of the runs before has holes. */
  drawUnknown(context, colour) {
    const until = this.unknownUntil();
    if (until !== null) this.hatched(context, this.x(0), this.x(until), colour["--line"]);
  }

  unknownUntil() {
    const { rewritten, runs } = this.timeline;
    return rewritten === null ? null : (runs[0]?.start ?? rewritten);
  }

  drawBreaks(context, colour) {
    for (const gap of this.axis.breaks()) {
      const from = this.xOf(gap.from);
      const to = this.xOf(gap.to);
      if (to < LEFT || from > this.width) continue;
      filled(context, themeColour("--bg"), from, TOP, to - from, this.height - TOP - BOTTOM);
      this.hatched(context, from, to, colour["--line"]);
    }
  }

  drawRuns(context, colour) {
    const { runs } = this.timeline;
    let free = -Infinity;
    runs.forEach((run) => {
      const start = run.start ?? run.end;
      const x = this.x(start);
      if (x >= LEFT - 1 && x <= this.width) {
        line(context, colour["--fg"], 1, Math.max(LEFT + 0.5, x), 4, Math.max(LEFT + 0.5, x), this.height - BOTTOM);
        const label = runs.length > 1 || this.timeline.rewritten !== null ? `run ${run.number}` : "began";
        const wide = context.measureText(label).width;
        const left = Math.min(x + 3, this.width - wide - 8);
        if (left > free) {
          write(context, colour["--fg"], "left", label, left, 8);
          free = left + wide + 4;
        }
      }
      const died = !run.state && !(this.timeline.now !== null && run === runs.at(-1));
      const end = this.x(run.end);
      if (died && end >= LEFT && end <= this.width) {
        filled(context, colour["--bad"], end - 1.5, TOP - 6, 3, this.height - TOP - BOTTOM + 6);
        const room = end - this.x(start) > 48;
        write(context, colour["--bad"], room ? "right" : "center", room ? "✗ died" : "✗", room ? end - 3 : end, 19);
      }
    });
  }

  drawMarks(context, colour) {
    const glyphs = { order: "▼", drain: "◼", memory: "▲", stall: "◷", rewritten: "≈" };
    context.textAlign = "center";
    for (const mark of this.timeline.marks) {
      const x = this.x(mark.at);
      if (x < LEFT || x > this.width) continue;
      const row = this.rows.get(mark.slot);
      let [glyph, y] = [glyphs[mark.kind] || "✗", 19];
      if (mark.kind === "worker" && row !== undefined) {
        [glyph, y] = ["✗", this.place[row] + this.laneHeight / 2];
        context.strokeStyle = themeColour("--bg");
        context.lineWidth = 3;
        context.strokeText(glyph, x, y);
      }
      write(context, colour["--fg"], "center", glyph, x, y);
    }
  }

  // ------------------------------------------------------------------------ reading

  listen() {
    const { canvas } = this;
    let from = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button === 0) from = event.offsetX;
    });
    canvas.addEventListener("pointermove", (event) => {
      if (from !== null && Math.abs(event.offsetX - from) > 4) {
        this.draw();
        const context = canvas.getContext("2d");
        filled(context, "rgba(128,128,128,0.35)", Math.min(from, event.offsetX), TOP, Math.abs(event.offsetX - from), this.height - TOP - BOTTOM);
      } else if (event.pointerType === "mouse") {
        this.point(event.offsetX, event.offsetY);
      }
    });
    canvas.addEventListener("pointerup", (event) => {
      if (from !== null && Math.abs(event.offsetX - from) > 4) {
        const ends = [this.placeAt(from), this.placeAt(event.offsetX)].sort((one, other) => one - other);
        this.shown.set(ends[0], ends[1]);
      } else {
        this.select(this.at(event.offsetX, event.offsetY));
      }
      from = null;
    });
    canvas.addEventListener("dblclick", () => this.shown.set(0, this.axis.length));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const acts = {
      "+": () => this.shown.zoom(0.5),
      "=": () => this.shown.zoom(0.5),
      "-": () => this.shown.zoom(2),
      0: () => this.shown.set(0, this.axis.length),
      ArrowLeft: () => this.step(-1),
      ArrowRight: () => this.step(1),
      Enter: () => this.open(this.selected),
      PageUp: () => this.shown.move(-0.5),
      PageDown: () => this.shown.move(0.5),
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in acts)) return;
    event.preventDefault();
    acts[event.key]();
  }

  /** The next attempt in the order of time. */
  step(by) {
    this.order ??= this.lanes.start.map((_, index) => index).sort((one, other) => this.lanes.start[one] - this.lanes.start[other]);
    const now = this.order.indexOf(this.selected);
    const next = this.order[Math.min(Math.max(0, now + by), this.order.length - 1)];
    if (next === undefined) return;
    const place = this.axis.place(this.lanes.start[next]);
    this.selected = next;
    if (place < this.shown.from || place > this.shown.to) this.shown.set(place - (this.shown.to - this.shown.from) / 2, place + (this.shown.to - this.shown.from) / 2);
    this.select(next);
  }

  at(x, y) {
    const row = this.place.findIndex((top) => y >= top && y < top + this.laneHeight);
    const slot = this.timeline.slots[row];
    if (slot === undefined || x < LEFT) return -1;
    const { lanes } = this;
    let best = -1;
    let nearest = 6;
    for (let index = 0; index < lanes.slot.length; index++) {
      if (lanes.slot[index] !== slot) continue;
      const start = this.x(lanes.start[index]);
      const end = this.x(lanes.start[index] + (this.singly ? lanes.seconds[index] : lanes.width));
      const away = x < start ? start - x : x > end ? x - end : 0;
      if (away < nearest) [best, nearest] = [index, away];
      if (!nearest) break;
    }
    return best;
  }

  words(index) {
    const { lanes } = this;
    if (index < 0) return "";
    if (!this.singly) {
      const when = `${this.axis.words(lanes.start[index], true)}, ${duration(lanes.width)}`;
      return `worker ${lanes.slot[index]}, ${when}: ${counted(lanes.ended[index], "attempt")} ended, ${lanes.failed[index]} failed, busy for ${duration(lanes.busy[index])}`;
    }
    const outcome = lanes.outcome[index];
    return `${OUTCOME_GLYPHS[outcome]} ${lanes.ids[lanes.job[index]]}: ${this.timeline.outcomes[outcome]}, ${duration(lanes.seconds[index])}, worker ${lanes.slot[index]}, from ${this.axis.words(lanes.start[index], true)}`;
  }

  point(x, y) {
    const text = y < TOP ? this.markAt(x) : this.words(this.at(x, y));
    showTip(this.tip, text, x, y, this.width);
  }

  markAt(x) {
    const near = this.timeline.marks.filter((mark) => Math.abs(this.x(mark.at) - x) < 7).slice(0, 3);
    return near.map((mark) => `${this.axis.words(mark.at, true)} ${mark.text}`).join("; ");
  }

  select(index) {
    this.selected = index;
    this.told.textContent = this.words(index);
    if (this.onOpen && this.singly && index >= 0) this.told.append(" ", button("open the job", () => this.open(index)));
    this.draw();
  }

  open(index) {
    if (this.onOpen && this.singly && index >= 0) this.onOpen(this.lanes.ids[this.lanes.job[index]]);
  }

  /** Other lanes of the same workers: finer ones, of a part. @param {any} lanes */
  show(lanes) {
    this.lanes = lanes;
    this.singly = "job" in lanes;
    this.selected = -1;
    this.order = undefined;
    this.told.textContent = "";
    this.draw();
  }
}
