// The results: filter, sort, choose columns, leaf through. A table, and on a phone a card for each job.

import { button, cardTable, checkbox, choices, element, labelled, notes, scroller, sortHead } from "./elements.mjs";
import { chosenBefore, keepChoice } from "./choices_kept.mjs";
import { counted, duration, grouped, plainNumber } from "./words.mjs";

const SHOWN_AT_FIRST = 14;
const LONGEST = 200; // characters of a text in the file
const STATE_GLYPHS = { completed: "✓ completed", failed: "✗ failed", in_progress: "● in progress", pending: "○ pending" };

/** @param {any} column @param {number} row @returns {any} number, text or null */
export function cellOf(column, row) {
  const value = column.values[row];
  return value !== null && column.kind === "text" ? column.texts[value] : value;
}

/** @param {any} column @param {number} row @returns {string} */
export function cellText(column, row) {
  const value = cellOf(column, row);
  if (value === null) return "";
  if (column.name === "state") return STATE_GLYPHS[value] ?? value;
  if (typeof value !== "number") return value;
  return column.name === "seconds" ? duration(value) : plainNumber(value);
}

/** Columns that say something: what differs from job to job, and no identification of what all have in common.
 * @param {any[]} columns @returns {Set<string>} */
export function usefulColumns(columns) {
  const always = ["job", "state", "seconds"];
  const isLong = (column) => column.texts.filter((text) => text.length > 60).length * 2 > column.texts.length;
  const tells = (column) => column.varies && column.name !== "outcome" && column.name !== "error.message" && !isLong(column);
  const found = columns.filter((column) => always.includes(column.name) || tells(column));
  return new Set(found.slice(0, SHOWN_AT_FIRST).map((column) => column.name));
}

/** @param {HTMLElement} place @param {any} results columns of it, and the number of rows */
export function drawResults(place, results) {
  const table = new ResultsTable(results);
  place.append(...table.parts());
  table.refresh();
}

class ResultsTable {
  constructor({ columns, rows, total }) {
    this.columns = columns;
    this.rows = rows;
    this.of = total > rows ? " of the sample" : "";
    const before = chosenBefore();
    this.query = before.get("q") ?? "";
    this.state = before.get("state") ?? "";
    this.sort = before.get("sort") ?? "";
    this.page = 0;
    this.perPage = matchMedia("(max-width: 40rem)").matches ? 10 : 50;
    const named = before.get("columns");
    this.shown = named ? new Set(named.split("\n")) : usefulColumns(columns);
    this.byName = new Map(columns.map((column) => [column.name, column]));
    this.texts = null;
  }

  parts() {
    const states = this.byName.get("state")?.texts ?? [];
    this.search = element("input", { type: "search", id: "filter", value: this.query, placeholder: "text, or params.n>3", input: () => this.choose({ query: this.search.value }) });
    this.chooser = element("select", { change: () => this.choose({ state: this.chooser.value }) }, ...choices([["", "all"], ...states.map((name) => [name, STATE_GLYPHS[name] ?? name])], this.state));
    this.sorter = element("select", { change: () => this.choose({ sort: this.sorter.value }) });
    const tools = element("div", { class: "tools" }, labelled("filter", this.search), labelled("state", this.chooser), labelled("sort by", this.sorter));
    this.picker = element("div", { class: "picker" });
    const picker = element("details", {}, element("summary", { text: `columns (${this.columns.length})` }), this.picker);
    this.told = element("p", { class: "note", role: "status" });
    this.head = element("tr");
    this.body = element("tbody");
    this.frame = scroller("results table", cardTable("Jobs with their parameters and results", this.head, this.body));
    this.before = button("← before", () => this.leaf(-1));
    this.after = button("next →", () => this.leaf(1));
    const pager = element("div", { class: "tools" }, this.before, this.after);
    this.fillPicker();
    const cut = this.columns.some((column) => column.texts.some((text) => text.length >= LONGEST && text.endsWith("…")));
    return [tools, picker, this.told, this.frame, pager, ...notes(cut ? `Texts that end with … are cut at ${LONGEST} characters; longhaul show JOB has all of one.` : "")];
  }

  fillPicker() {
    const all = (chosen) => {
      this.shown = new Set(chosen);
      this.fillPicker();
      this.keepColumns();
      this.refresh();
    };
    const several = (text, chosen) => button(text, () => all(chosen()));
    const boxes = this.columns.map((column) => {
      return checkbox(column.name + (column.varies ? "" : " (same for all)"), this.shown.has(column.name), (event) => {
        if (event.target.checked) this.shown.add(column.name);
        else this.shown.delete(column.name);
        this.keepColumns();
        this.refresh();
      });
    });
    this.picker.replaceChildren(
      element("div", { class: "tools" }, several("those that differ", () => usefulColumns(this.columns)), several("all", () => this.columns.map((column) => column.name))),
      ...boxes,
    );
  }

  keepColumns() {
    const usual = [...usefulColumns(this.columns)].join("\n");
    const now = [...this.shown].join("\n");
    keepChoice("columns", now === usual ? "" : now);
  }

  choose(changes) {
    Object.assign(this, changes, { page: 0 });
    keepChoice("q", this.query);
    keepChoice("state", this.state);
    keepChoice("sort", this.sort);
    this.refresh();
  }

  leaf(by) {
    this.page += by;
    this.refresh();
    this.frame.scrollIntoView({ block: "nearest" });
  }

  /** Rows that the filter lets through: words anywhere in the row, and conditions such as `params.n>3`. */
  matching() {
    const stateColumn = this.byName.get("state");
    const words = this.query.toLowerCase().split(/\s+/).filter(Boolean);
    const tests = words.map((word) => this.testOf(word));
    const found = [];
    for (let row = 0; row < this.rows; row++) {
      if (this.state && cellOf(stateColumn, row) !== this.state) continue;
      if (tests.every((test) => test(row))) found.push(row);
    }
    return found;
  }

  testOf(word) {
    const parts = word.match(/^([^<>=!]+)(>=|<=|!=|>|<|=)(.+)$/);
    const column = parts && this.columnCalled(parts[1]);
    if (!column) return (row) => this.textOf(row).includes(word);
    const wanted = parts[3];
    const number = Number(wanted);
    const compare = { ">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b, "=": (a, b) => a === b, "!=": (a, b) => a !== b }[parts[2]];
    return (row) => {
      const value = cellOf(column, row);
      if (value === null) return false;
      return typeof value === "number" ? compare(value, number) : compare(String(value).toLowerCase(), wanted);
    };
  }

  columnCalled(name) {
    const lower = name.toLowerCase();
    const called = (column) => column.name.toLowerCase();
    return this.columns.find((column) => called(column) === lower) ?? this.columns.find((column) => called(column).endsWith(`.${lower}`));
  }

  textOf(row) {
    this.texts ??= [];
    this.texts[row] ??= this.columns
      .filter((column) => column.kind === "text")
      .map((column) => cellOf(column, row) ?? "")
      .join("\n")
      .toLowerCase();
    return this.texts[row];
  }

  sorted(rows) {
    const down = this.sort.startsWith("-");
    const column = this.byName.get(down ? this.sort.slice(1) : this.sort);
    if (!column) return rows;
    const rank = (value) => (value === null ? 2 : typeof value === "number" ? 0 : 1);
    const words = new Intl.Collator("en", { numeric: true });
    return rows.sort((one, other) => {
      const [a, b] = [cellOf(column, one), cellOf(column, other)];
      if (rank(a) !== rank(b) || a === null) return rank(a) - rank(b);
      const order = typeof a === "number" ? a - b : words.compare(a, b);
      return down ? -order : order;
    });
  }

  refresh() {
    const rows = this.sorted(this.matching());
    const last = Math.max(0, Math.ceil(rows.length / this.perPage) - 1);
    this.page = Math.min(Math.max(0, this.page), last);
    const columns = this.columns.filter((column) => this.shown.has(column.name));
    const part = rows.slice(this.page * this.perPage, (this.page + 1) * this.perPage);
    this.told.textContent = `${counted(rows.length, "row")}${rows.length === this.rows ? "" : ` of ${grouped(this.rows)}`}${this.of}${last ? `, page ${this.page + 1} of ${last + 1}` : ""}`;
    this.before.disabled = this.page === 0;
    this.after.disabled = this.page === last;
    this.before.parentElement.hidden = !last;
    const sortPairs = [["", "order of the script"], ...columns.flatMap((column) => [[column.name, `${column.name} ↑`], [`-${column.name}`, `${column.name} ↓`]])];
    this.sorter.replaceChildren(...choices(sortPairs, this.sort));
    const choose = (changes) => this.choose(changes);
    this.head.replaceChildren(...columns.map(({ name, kind }) => sortHead(name, name, this.sort, kind === "number", choose)));
    this.body.replaceChildren(
      ...part.map((row) => {
        const cells = columns.map((column) => {
          const text = cellText(column, row);
          const state = column.name === "state" ? cellOf(column, row) : "";
          const classes = [column.kind === "number" && "number", state, text.length > 40 && "long"].filter(Boolean).join(" ");
          return element("td", { "data-label": column.name, class: classes || null, text });
        });
        return element("tr", {}, ...cells);
      }),
    );
  }
}
