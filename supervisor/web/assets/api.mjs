// Asks the server, with the token of this tab. Addresses are relative, so that the page may lie under a path.

const KEPT = `longhaul ${location.pathname}`;
const known = new Map(); // by path: ETag and answer
const MOST_KNOWN = 40;
const PATIENCE = 20; // seconds for what is known at once: a tunnel that has lost its other end says nothing
const LONG = 120;

/** An answer that is an error, or none at all (status 0). */
export class AskError extends Error {
  /** @param {number} status @param {string} error @param {string} hint */
  constructor(status, error, hint) {
    super(error);
    this.status = status;
    this.hint = hint;
  }
}

/** Move the token from the address to this tab's storage. @returns {boolean} whether there is one */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("t");
  if (given) {
    keepToken(given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return Boolean(sessionStorage.getItem(KEPT));
}

/** @param {string} text a token, or the address with it */
export function keepToken(text) {
  sessionStorage.setItem(KEPT, text.trim().replace(/^.*#t=/, ""));
}

/** @param {string} path @param {Object<string, any>} [query] what is empty is left out @returns {string} */
function pathOf(path, query = {}) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== null && value !== "") words.set(name, String(value));
  return `api/${path}${words.size ? `?${words}` : ""}`;
}

function broken() {
  throw new AskError(0, "the server does not answer", "it has ended, or the connection to it is broken");
}

async function send(path, options = {}) {
  const headers = { ...options.headers, "X-Longhaul-Token": sessionStorage.getItem(KEPT) ?? "" };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch {
    broken();
  }
  if (answer.ok || answer.status === 304) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new AskError(answer.status, told.error ?? `the answer was ${answer.status}`, told.hint ?? "");
}

/** @param {string} path below `api/` @param {Object<string, any>} [query] @returns {Promise<any>} the very same object
 * as before if nothing has changed */
export async function ask(path, query) {
  const where = pathOf(path, query);
  const before = known.get(where);
  const answer = await send(where, { headers: before ? { "If-None-Match": before.tag } : {}, signal: AbortSignal.timeout(1000 * (path.endsWith("/live") ? PATIENCE : LONG)) });
  if (answer.status === 304 && before) return before.document;
  const document = await answer.json().catch(broken);
  known.delete(where);
  known.set(where, { tag: answer.headers.get("etag") ?? "", document });
  if (known.size > MOST_KNOWN) known.delete(known.keys().next().value);
  return document;
}

/** @param {string} key @param {any} document @returns {Promise<any>} the run's answer */
export async function sendOrder(key, document) {
  const body = JSON.stringify(document);
  const answer = await send(pathOf(`x/${key}/orders`), { method: "POST", body, headers: { "Content-Type": "application/json" } });
  return answer.json();
}

/** Save an answer as a file. @param {string} path @param {Object<string, any>} query @param {string} name */
export async function download(path, query, name) {
  const answer = await send(pathOf(path, query));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Text as it can be shown: what cannot be seen, or would reorder what stands around it, becomes a mark.
 * @param {any} text @returns {string} */
export function plain(text) {
  return String(text ?? "").replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]/gu, "\ufffd");
}
