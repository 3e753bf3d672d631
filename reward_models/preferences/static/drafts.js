// An unfinished answer: to the server a moment after its last change, and in this browser until the server has it.

import { keep, kept } from "./kept.js";

const PAUSE = 800; // milliseconds
const PAUSE_AFTER_FAILURE = 5000;

export class Draft {
  // post(path, body, keepalive) -> Promise<Response>; report(text) says how it stands
  constructor(rater, assignment, post, report) {
    this.name = `draft-${rater}-${assignment}`;
    this.assignment = assignment;
    this.post = post;
    this.report = report;
    this.text = null; // what the server has not got
    this.timer = 0;
  }

  // What this browser has and the server has not; null if nothing.
  unsaved() {
    return kept(this.name);
  }

  change(text) {
    this.text = text;
    keep(this.name, text);
    this.report("");
    this.saveIn(PAUSE);
  }

  saveIn(pause) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), pause);
  }

  async save(keepalive = false) {
    const { text, assignment } = this;
    if (text === null) return;
    const response = await this.post("/api/draft", { assignment, text }, keepalive).catch(() => null);
    if (this.text !== text) return; // changed again, or answered, in the meantime
    if (response?.ok) {
      this.forget();
      this.report("Draft saved.");
    } else {
      this.report("Draft kept in this browser; the server cannot be reached.");
      this.saveIn(PAUSE_AFTER_FAILURE);
    }
  }

  // The server has it, or an answer in its place.
  forget() {
    clearTimeout(this.timer);
    this.text = null;
    keep(this.name, null);
  }
}
