// Small things that every part of the page needs. Whatever the service answers is set as text, never as HTML, because
// names and messages may hold anything.

export const $ = (id) => document.getElementById(id);
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
/** A share in per cent; what is nearly certain does not become 100. */
export const percent = (share) => `${(100 * share).toFixed(share > 0.99 && share < 1 ? 1 : 0)}\u00a0%`;
export const latLon = ({ lat, lon }) => `${lat.toFixed(6)}, ${lon.toFixed(6)}`;
export const metres = (value) => `${value < 10 ? value.toFixed(1) : value.toFixed(0)}\u00a0m`; // with a space at which no line ends

/** An element with attributes set, and texts and elements in it. */
export function el(tag, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A list of names and values, without those that are null. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined);
  return el("dl", {}, ...known.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

export const say = (text, kind = "") => Object.assign($("message"), { textContent: text, className: kind });

/** Say what went wrong; what was given up on purpose is no news. */
export const complain = (error) => error.name === "AbortError" || say(error.message, "bad");

/** Ask the user to choose; the chosen word, or null when the question is closed. */
export function choose(question, ...words) {
  const dialog = $("ask");
  dialog.querySelector("p").textContent = question;
  const cancel = el("button", { value: "", className: "plain" }, "Cancel");
  dialog.querySelector("menu").replaceChildren(cancel, ...words.map((word) => el("button", { value: word }, word)));
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => {
    dialog.onclose = () => done(dialog.returnValue || null);
  });
}
