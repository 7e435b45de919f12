// The data in the page: JSON in script elements, large parts packed with gzip as base64.

/** @param {string} id @returns {any} */
export function facts(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

/** @param {string} id @returns {Promise<any>} */
export async function unpacked(id) {
  const text = atob(document.getElementById(id).textContent.trim());
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** What the reader has chosen, kept behind the # of the address, so that it can be sent on.
 * @returns {URLSearchParams} */
export function chosenBefore() {
  return new URLSearchParams(location.hash.slice(1));
}

/** @param {string} name @param {string} value "" forgets it */
export function keepChoice(name, value) {
  const all = chosenBefore();
  if (value) all.set(name, value);
  else all.delete(name);
  try {
    history.replaceState(null, "", `#${all}`);
  } catch {
    // Some viewers of files forbid it; the choice is then not kept.
  }
}
