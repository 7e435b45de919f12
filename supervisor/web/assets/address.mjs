// What is shown stands in the address: experiment `x`, page `p`, and what the reader has chosen on it.

import { element } from "./elements.mjs";

let moved = () => {};

/** @param {() => void} act called when another page is to be shown */
export function onMove(act) {
  moved = act;
  addEventListener("popstate", act);
}

/** @returns {Object<string, string>} */
export function chosen() {
  return Object.fromEntries(new URLSearchParams(location.search));
}

/** @param {Object<string, any>} wanted @returns {string} */
export function addressOf(wanted) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(wanted)) if (value) words.set(name, value);
  return words.size ? `?${words}` : location.pathname;
}

/** Show something else. @param {Object<string, any>} wanted all that the address is to have */
export function go(wanted) {
  history.pushState(null, "", addressOf(wanted));
  moved();
}

/** Keep a choice of this page, without a step in the history. @param {Object<string, any>} changes */
export function keep(changes) {
  history.replaceState(null, "", addressOf({ ...chosen(), ...changes }) + location.hash);
}

/** A link within the page. @param {Object<string, any>} wanted @param {string} text @param {Object<string, any>} [more] */
export function link(wanted, text, more = {}) {
  const click = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    go(wanted);
  };
  return element("a", { href: addressOf(wanted), text, click, ...more });
}
