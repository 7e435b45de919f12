// Any metric against any parameter that varies, coloured by a third column.

import { asTable, checkbox, choices, element, labelled, line, picture, redrawn, sharpCanvas, showTip, themeColour, write } from "./elements.mjs";
import { chosenBefore, keepChoice } from "./choices_kept.mjs";
import { cellOf, cellText } from "./results_table.mjs";
import { counted, grouped, niceStep, plainNumber, rounded } from "./words.mjs";

const MARGIN = { left: 64, right: 12, top: 10, bottom: 42 };
const HEIGHT = 340;
const MOST_COLOURS = 8;
const MOST_CATEGORIES = 60;

const isMetric = (column) => column.name.startsWith("result") || column.name === "seconds";
const isParam = (column) => column.name.startsWith("params") || column.name === "domain";

/** How many different values a column has. @param {any} column @returns {number} */
export function differing(column) {
  return column.kind === "text" ? column.texts.length : new Set(column.values.filter((value) => value !== null)).size;
}

/** What is worth looking at first: the metric that differs most against the parameter that differs most, coloured by
 * another one with few values. @param {any[]} columns @returns {{x: string, y: string, colour: string}} */
export function firstChoice(columns) {
  const spread = new Map(columns.map((column) => [column.name, differing(column)]));
  const by = (list) => [...list].sort((one, other) => spread.get(other.name) - spread.get(one.name));
  const known = /(^|[._])(score|acc|accuracy|auc|f1|loss|error|rmse|mse|mae|r2|value|mean|objective|reward)/i;
  const metrics = columns.filter((column) => isMetric(column) && column.kind === "number" && column.varies);
  const named = metrics.filter((column) => known.test(column.name));
  const y = (named[0] ?? by(metrics.filter((column) => column.name !== "seconds"))[0] ?? metrics[0])?.name ?? "";
  const params = columns.filter((column) => isParam(column) && column.varies);
  // A number that is another one for nearly every job is a count of them, or a seed.
  const isIndex = (column) => spread.get(column.name) > 0.9 * column.values.length && column.values.length > 20;
  const numeric = params.filter((column) => column.kind === "number");
  const numbers = [...by(numeric.filter((column) => !isIndex(column))), ...numeric.filter(isIndex)];
  const groups = by(params.filter((column) => column.kind === "text" && spread.get(column.name) <= MOST_CATEGORIES));
  const x = (numbers[0] ?? groups[0])?.name ?? (y === "seconds" ? "" : "seconds");
  const few = [...groups, ...numbers].filter((column) => column.name !== x && spread.get(column.name) <= MOST_COLOURS);
  return { x, y, colour: few[0]?.name ?? "" };
}

/** @param {HTMLElement} place @param {any} results @returns {boolean} whether there is anything to plot */
export function drawScatter(place, results) {
  const usual = firstChoice(results.columns);
  const plot = new ScatterPlot(results, usual);
  if (!usual.y || !usual.x) return false;
  place.append(...plot.parts());
  redrawn(plot.frame, () => plot.draw());
  return true;
}

class ScatterPlot {
  constructor({ columns, rows, note }, usual) {
    this.columns = columns;
    this.rows = rows;
    this.note = note;
    this.byName = new Map(columns.map((column) => [column.name, column]));
    const before = chosenBefore();
    const known = (name, other) => (this.byName.has(name) ? name : other);
    this.x = known(before.get("x"), usual.x);
    this.y = known(before.get("y"), usual.y);
    this.colour = before.get("colour") === "none" ? "" : known(before.get("colour"), usual.colour);
    this.selected = -1;
    this.points = [];
  }

  parts() {
    const numbers = this.columns.filter((column) => column.kind === "number" && column.varies);
    const axes = this.columns.filter((column) => column.varies && (column.kind === "number" || differing(column) <= MOST_CATEGORIES) && column.name !== "job");
    const pick = (label, name, list, more = []) => {
      const pairs = [...more, ...list.map((column) => [column.name, column.name])];
      const select = element("select", { change: () => this.choose(name, select.value) }, ...choices(pairs, this[name]));
      return labelled(label, select);
    };
    this.logBoxes = {};
    const log = (name) => {
      const made = checkbox(`log ${name}`, false, () => this.draw());
      this.logBoxes[name] = made.firstChild;
      return made;
    };
    const tools = element(
      "div",
      { class: "tools" },
      pick("up", "y", numbers),
      pick("across", "x", axes),
      pick("colour", "colour", axes, [["", "none"]]),
      log("x"),
      log("y"),
    );
    Object.assign(this, picture());
    this.legend = element("p", { class: "legend" });
    this.summary = element("p", { class: "note" });
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX, event.offsetY));
    this.canvas.addEventListener("click", (event) => this.select(this.nearest(event.offsetX, event.offsetY)));
    this.canvas.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by || !this.points.length) return;
      event.preventDefault();
      this.order ??= this.points.map((_, index) => index).sort((one, other) => this.points[one].x - this.points[other].x);
      const at = this.order.indexOf(this.selected);
      this.select(this.order[Math.min(Math.max(0, at + by), this.order.length - 1)]);
    });
    const rows = () => this.points.slice(0, 300).map((point) => this.cellsOf(point.row));
    this.table = element("div", {}, asTable(["job", "across", "up", "colour"], rows, this.rows > 300 ? "The first 300 points; all rows are in the results table." : ""));
    this.usualLogs();
    return [tools, this.summary, this.frame, this.told, this.legend, this.table];
  }

  choose(name, value) {
    this[name] = value;
    keepChoice(name, value || "none");
    this.selected = -1;
    this.told.textContent = "";
    this.usualLogs();
    this.draw();
  }

  /** Powers of ten where values are spread over more than two of them. */
  usualLogs() {
    for (const name of ["x", "y"]) {
      const column = this.byName.get(this[name]);
      const values = column.kind === "number" ? column.values.filter((value) => typeof value === "number") : [];
      const [least, most] = [Math.min(...values), Math.max(...values)];
      this.logBoxes[name].disabled = !(values.length && least > 0);
      this.logBoxes[name].parentElement.title = this.logBoxes[name].disabled ? "only where all values are numbers above zero" : "";
      this.logBoxes[name].checked = values.length > 0 && least > 0 && most / least >= 50;
    }
  }

  cellsOf(row) {
    const words = (name) => (name ? cellText(this.byName.get(name), row) : "");
    return [words("job"), words(this.x), words(this.y), words(this.colour)];
  }

  scaleOf(column, log, from, to) {
    if (column.kind === "text") {
      const used = inOrder(column);
      const order = new Map(used.map((value, index) => [value, index]));
      const wide = (to - from) / Math.max(1, used.length);
      const most = Math.max(1, Math.floor(Math.abs(to - from) / 44));
      const every = Math.ceil(used.length / most);
      const ticks = used.filter((_, index) => index % every === 0).map((value) => ({ at: from + (order.get(value) + 0.5) * wide, label: column.texts[value] }));
      return { place: (row) => (column.values[row] === null ? null : from + (order.get(column.values[row]) + 0.5) * wide), ticks, wide, used };
    }
    const there = column.values.filter((value) => typeof value === "number" && (!log || value > 0));
    let [least, most] = [Math.min(...there), Math.max(...there)];
    if (log) [least, most] = [Math.log10(least), Math.log10(most)];
    const more = (most - least || Math.abs(most) || 1) * 0.05;
    [least, most] = [least - more, most + more];
    const place = (value) => from + ((value - least) / (most - least)) * (to - from);
    const ticks = [];
    const room = Math.max(2, Math.floor(Math.abs(to - from) / 70));
    if (log) {
      const each = Math.max(1, Math.ceil((most - least) / room));
      for (let power = Math.ceil(least); power <= most; power += each) ticks.push({ at: place(power), label: plainNumber(10 ** power) });
      if (ticks.length < 2) {
        ticks.length = 0;
        for (const value of [least + more, most - more]) ticks.push({ at: place(value), label: rounded(10 ** value, 2) });
      }
    } else {
      const step = niceStep(most - least, room);
      for (let value = Math.ceil(least / step) * step; value <= most; value += step) ticks.push({ at: place(value), label: rounded(value, 6) });
    }
    const placed = (row) => {
      const value = column.values[row];
      if (typeof value !== "number" || (log && value <= 0)) return null;
      return place(log ? Math.log10(value) : value);
    };
    return { place: placed, ticks };
  }

  /** A colour for each row, and what it means. */
  colours() {
    const column = this.colour ? this.byName.get(this.colour) : null;
    if (!column) return { of: () => ({ colour: themeColour("--c0"), shape: 0 }), entries: [] };
    const values = inOrder(column);
    if (column.kind === "number" && values.length > MOST_COLOURS) {
      const [least, most] = [values[0], values.at(-1)];
      const shade = (value) => {
        const share = (value - least) / (most - least || 1);
        return `hsl(${Math.round(265 - 205 * share)} 75% ${Math.round((matchMedia("(prefers-color-scheme: dark)").matches ? 70 : 46) - 6 * share)}%)`;
      };
      const entries = [least, (least + most) / 2, most].map((value) => [shade(value), rounded(value, 4), 0]);
      return { of: (row) => (typeof column.values[row] === "number" ? { colour: shade(column.values[row]), shape: 0 } : { colour: themeColour("--muted"), shape: 0 }), entries };
    }
    const order = new Map(values.slice(0, MOST_COLOURS).map((value, index) => [value, index]));
    const colours = values.map((_, index) => themeColour(`--c${index % MOST_COLOURS}`));
    const entries = [...order].map(([value, index]) => [colours[index], column.kind === "text" ? column.texts[value] : plainNumber(value), index % CORNERS.length]);
    if (values.length > MOST_COLOURS) entries.push([themeColour("--muted"), `${values.length - MOST_COLOURS} others`, 0]);
    const of = (row) => {
      const index = order.get(column.values[row]);
      return index === undefined ? { colour: themeColour("--muted"), shape: 0 } : { colour: colours[index], shape: index % CORNERS.length };
    };
    return { of, entries };
  }

  draw() {
    const { context, width, height } = sharpCanvas(this.canvas, HEIGHT);
    this.width = width;
    this.order = null;
    const [x, y] = [this.byName.get(this.x), this.byName.get(this.y)];
    const logs = { x: this.logBoxes.x.checked, y: this.logBoxes.y.checked };
    const across = this.scaleOf(x, logs.x, MARGIN.left, width - MARGIN.right);
    const up = this.scaleOf(y, logs.y, height - MARGIN.bottom, MARGIN.top);
    this.frameOf(context, across, up, width, height);
    const colours = this.colours();
    this.points = [];
    this.left = { strange: 0, absent: 0, low: 0 };
    for (let row = 0; row < this.rows; row++) {
      let px = across.place(row);
      const py = up.place(row);
      if (px === null || py === null) {
        const values = [x, y].map((column) => column.values[row]);
        const strange = [x, y].some((column, index) => column.kind === "number" && typeof values[index] === "string");
        this.left[strange ? "strange" : values.includes(null) ? "absent" : "low"]++;
        continue;
      }
      if (across.wide) px += (((row * 2654435761) % 1000) / 1000 - 0.5) * across.wide * 0.6;
      this.points.push({ x: px, y: py, row });
    }
    const size = this.points.length > 2000 ? 2 : this.points.length > 400 ? 3 : 4;
    context.globalAlpha = this.points.length > 2000 ? 0.5 : 0.8;
    for (const point of this.points) {
      const { colour, shape } = colours.of(point.row);
      context.fillStyle = colour;
      dot(context, point.x, point.y, size, shape);
    }
    context.globalAlpha = 1;
    if (across.used) this.medians(context, x, across, up);
    const chosen = this.points[this.selected];
    if (chosen) {
      context.strokeStyle = themeColour("--fg");
      context.lineWidth = 2;
      context.beginPath();
      context.arc(chosen.x, chosen.y, size + 3, 0, 7);
      context.stroke();
    }
    const shapes = ["●", "■", "▲", "◆"];
    this.legend.replaceChildren(
      ...(colours.entries.length ? [element("span", { text: `${this.colour}:` })] : []),
      ...colours.entries.map(([colour, text, shape]) => {
        const mark = element("b", { text: shapes[shape], "aria-hidden": "true" });
        mark.style.color = colour;
        return element("span", {}, mark, ` ${text}`);
      }),
    );
    this.summary.textContent = this.words(y);
    this.canvas.setAttribute("aria-label", this.summary.textContent);
  }

  /** The middle value of each category, as a line. */
  medians(context, x, across, up) {
    const byCategory = new Map();
    for (const point of this.points) {
      const key = x.values[point.row];
      byCategory.set(key, [...(byCategory.get(key) ?? []), point.y]);
    }
    across.used.forEach((value, index) => {
      const ys = byCategory.get(value)?.sort((one, other) => one - other);
      if (!ys || ys.length < 3) return;
      const middle = ys[Math.floor(ys.length / 2)];
      const at = MARGIN.left + (index + 0.5) * across.wide;
      line(context, themeColour("--fg"), 2, at - across.wide * 0.32, middle, at + across.wide * 0.32, middle);
    });
  }

  words(y) {
    const rows = this.points.map((point) => point.row).sort((one, other) => y.values[one] - y.values[other]);
    const { strange, absent, low } = this.left;
    const parts = [[strange, "with nan or an infinity"], [absent, "without a value"], [low, "not above zero"]];
    const missing = parts.filter(([number]) => number).map(([number, why]) => `${grouped(number)} ${why}`);
    const left = missing.length ? ` Not drawn: ${missing.join(", ")}.` : "";
    if (!rows.length) return `No job has both values.${left}`;
    const job = this.byName.get("job");
    const told = (row) => `${plainNumber(y.values[row])} (${cellText(job, row)})`;
    const coloured = this.colour ? `, coloured by ${this.colour}` : "";
    const some = this.note ? " Of the rows that are in this file." : "";
    return `${this.y} against ${this.x}${coloured}: ${counted(rows.length, "job")}. Lowest ${told(rows[0])}, highest ${told(rows.at(-1))}.${left}${some}`;
  }

  frameOf(context, across, up, width, height) {
    context.font = "11px system-ui, sans-serif";
    const grid = themeColour("--line");
    const muted = themeColour("--muted");
    context.textBaseline = "middle";
    for (const tick of up.ticks) {
      line(context, grid, 1, MARGIN.left, tick.at, width - MARGIN.right, tick.at);
      write(context, muted, "right", tick.label, MARGIN.left - 6, tick.at);
    }
    const each = across.wide ? Math.max(across.wide, 44) : 80;
    for (const tick of across.ticks) {
      line(context, grid, 1, tick.at, height - MARGIN.bottom, tick.at, height - MARGIN.bottom + 4);
      write(context, muted, "center", fitted(context, tick.label, each), tick.at, height - MARGIN.bottom + 13);
    }
    context.fillStyle = themeColour("--fg");
    context.fillText(fitted(context, `${this.x} →`, width - MARGIN.left), (MARGIN.left + width) / 2, height - 10);
    context.save();
    context.translate(10, (height - MARGIN.bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.fillText(fitted(context, `${this.y} →`, height - MARGIN.bottom), 0, 0);
    context.restore();
  }

  nearest(x, y) {
    let best = -1;
    let least = 14 ** 2;
    this.points.forEach((point, index) => {
      const away = (point.x - x) ** 2 + (point.y - y) ** 2;
      if (away < least) [best, least] = [index, away];
    });
    return best;
  }

  pointWords(index) {
    const point = this.points[index];
    if (!point) return "";
    const [job, x, y, colour] = this.cellsOf(point.row);
    return `${job}: ${this.y} ${y}, ${this.x} ${x}${this.colour ? `, ${this.colour} ${colour}` : ""}`;
  }

  point(x, y) {
    const text = this.pointWords(this.nearest(x, y));
    showTip(this.tip, text, x, y, this.width);
  }

  select(index) {
    this.selected = index;
    this.told.textContent = this.pointWords(index);
    this.draw();
  }
}

/** The different values of a column: numbers by size, texts (their indices) as people sort them. */
function inOrder(column) {
  const values = [...new Set(column.values.filter((value) => typeof value === "number"))];
  if (column.kind === "number") return values.sort((one, other) => one - other);
  const words = new Intl.Collator("en", { numeric: true });
  return values.sort((one, other) => words.compare(column.texts[one], column.texts[other]));
}

/** Corners of the shapes of points; the first is a circle. */
const CORNERS = [[], [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]], [[0, -1.2], [1.1, 0.8], [-1.1, 0.8]], [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]]];

function dot(context, x, y, size, shape) {
  context.beginPath();
  if (!shape) context.arc(x, y, size, 0, 7);
  for (const [right, down] of CORNERS[shape]) context.lineTo(x + size * right, y + size * down);
  context.fill();
}

function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let short = text;
  while (short.length > 1 && context.measureText(`${short}…`).width > width) short = short.slice(0, -1);
  return `${short}…`;
}
