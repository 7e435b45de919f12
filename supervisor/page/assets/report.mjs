// A report: puts the pictures and tables into their places in the page. Without it the summary can still be read.

import { copy, element, notes } from "./elements.mjs";
import { drawLanes } from "./lanes.mjs";
import { facts, unpacked } from "./payload.mjs";
import { drawResults } from "./results_table.mjs";
import { drawScatter } from "./scatter.mjs";
import { drawSeries } from "./series.mjs";
import { ShownRange, TimeAxis } from "./time_axis.mjs";

/** @param {string} id @param {(place: HTMLElement) => void} draw an error is told in its place, and the others go on */
function section(id, draw) {
  const place = document.getElementById(id);
  if (!place) return;
  try {
    draw(place);
  } catch (error) {
    place.replaceChildren(element("p", { class: "trouble", text: `This part could not be drawn: ${error.message}` }));
    console.error(error);
  }
}

async function begin() {
  const known = facts("facts");
  document.documentElement.classList.add("drawn");
  if (typeof DecompressionStream === "undefined") {
    for (const id of ["lanes", "results", "plot"]) {
      document.getElementById(id)?.append(...notes("This browser is too old to unpack the data of this part; one of 2023 or later shows it."));
    }
    return;
  }
  const [lanes, results] = await Promise.all([unpacked("packed-lanes"), unpacked("packed-rows")]);
  const { timeline } = known;
  if (timeline.pieces.length && timeline.slots.length) {
    const shown = new ShownRange(new TimeAxis(timeline.pieces, timeline.origin));
    section("lanes", (place) => drawLanes(place, timeline, lanes, shown));
    section("series", (place) => drawSeries(place, timeline, shown, known.counts));
  } else {
    section("lanes", (place) => place.append(...notes("No job has been run yet, or the journal is gone: there is no timeline.")));
  }
  section("results", (place) => {
    place.append(element("h3", { text: "Table" }));
    drawResults(place, results);
  });
  section("plot", (place) => {
    place.append(element("h3", { text: "One against another" }));
    if (!drawScatter(place, results)) place.append(...notes("No number varies from job to job: there is nothing to plot."));
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    document.getElementById("filter")?.focus();
  });
  document.documentElement.dataset.ready = "yes";
}

for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}

begin().catch((error) => {
  document.getElementById("lanes")?.append(...notes(`The data in this file cannot be read: ${error.message}`));
  console.error(error);
});
