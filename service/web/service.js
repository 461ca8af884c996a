// Talking to the service. Paths are relative, so that the page works behind a proxy that puts it below a prefix.

import { $ } from "./elements.js";

let key = "";
const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});

/** Use a key for all that is asked from now on. */
export const useKey = (given) => {
  key = given;
};

/** What the service refused, in its words. */
class Problem extends Error {
  constructor(status, { type = "", title = `Status ${status}`, detail = "" }) {
    super(detail ? `${title}: ${detail}` : title);
    this.status = status;
    this.kind = type.split("/").at(-1);
    if (status === 401) $("key-form").hidden = false;
  }
}

/** Fetch with the key; a problem becomes an error with words to read. */
export async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { ...options.headers, ...headers() } }).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("The service does not answer. Is it still running?");
  });
  if (response.ok) return response;
  throw new Problem(response.status, await response.json().catch(() => ({})));
}

export const askJson = async (path, options) => (await ask(path, options)).json();

/** Ask again, a few times, while the service says that it has too much to do. */
export async function askPatiently(path, options) {
  for (let tries = 1; ; tries++) {
    try {
      return await askJson(path, options);
    } catch (error) {
      if (![429, 503].includes(error.status) || tries === 8) throw error;
      await new Promise((done) => setTimeout(done, 500 * tries));
      options?.signal?.throwIfAborted();
    }
  }
}

/** Send a form with a file in it, and tell how far that is: ``onProgress(share)``. ``fetch`` cannot tell. */
export function upload(path, form, onProgress, signal) {
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () =>
      request.status < 400 ? done(request.response) : fail(new Problem(request.status, request.response ?? {}));
    request.onerror = () => fail(new Error("The service does not answer. Is it still running?"));
    request.onabort = () => fail(new DOMException("given up", "AbortError"));
    signal.onabort = () => request.abort();
    request.send(form);
  });
}
