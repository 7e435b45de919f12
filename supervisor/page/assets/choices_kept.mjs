// What the reader has chosen, kept in the address.

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
