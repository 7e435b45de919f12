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
