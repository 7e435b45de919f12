/* Search for an option as it is written, "--resume". To the search of the theme, a word that begins with "-" is one
   that must not occur, so that it finds nothing: the dashes are left out of what it is asked. */
"use strict";
(() => {
  const OfTheTheme = window.Worker;
  window.Worker = class extends OfTheTheme {
    postMessage(message, ...more) {
      if (message && typeof message.data === "string") {
        message = { ...message, data: message.data.replace(/(^|\s)-+(?=\S)/g, "$1") };
      }
      super.postMessage(message, ...more);
    }
  };
})();
