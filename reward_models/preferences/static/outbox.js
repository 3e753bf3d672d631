// Sends one request after the other until each is answered. What is on its way is kept in the browser, so that neither a lost
// connection nor a closed tab loses it; its key makes the server take it once, however often it is sent.

import { keep, kept } from "./kept.js";

const FIRST_PAUSE = 1000; // milliseconds
const LONGEST_PAUSE = 15000;

export class Outbox {
  // post(path, body) -> Promise<Response>; report(state), "sending" or "waiting"
  constructor(name, post, report) {
    this.name = name;
    this.post = post;
    this.report = report;
  }

  // What an earlier page left unsent; null if nothing.
  left() {
    return JSON.parse(kept(this.name));
  }

  // Resolves with the server's answer: it took the request, or refused it for good.
  async deliver(path, body) {
    keep(this.name, JSON.stringify({ path, body }));
    for (let pause = FIRST_PAUSE; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      this.report("sending");
      const response = await this.post(path, body).catch(() => null);
      if (response && response.status < 500 && response.status !== 429) {
        const signedOut = response.status === 401 || response.status === 403;
        if (!signedOut) keep(this.name, null); // else the next page sends it
        return response;
      }
      this.report("waiting");
      await untilOnline(pause);
    }
  }
}

// Resolves after a pause, or as soon as the browser is online again.
export function untilOnline(pause) {
  return new Promise((resolve) => {
    addEventListener("online", resolve, { once: true });
    setTimeout(resolve, pause);
  });
}

// A key that nobody else makes. crypto.randomUUID exists on https and localhost alone.
export function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
