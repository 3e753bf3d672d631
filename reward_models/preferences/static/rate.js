// The rating page. The server renders what is asked (POST /task); this script shows it, takes the answer by key or button, and
// sees it home. Buttons say what they do: data-answer is the answer itself, data-action names a function, data-key its key.

import { Draft } from "./drafts.js";
import { keep, kept } from "./kept.js";
import { Outbox, newKey, untilOnline } from "./outbox.js";
import { Ranking } from "./ranking.js";

const RENEW = 4 * 60 * 1000; // milliseconds; a lease is ten minutes
const LOOK_AGAIN = [10000, 20000, 40000, 60000];

const main = document.getElementById("main");
const status = document.getElementById("status");
const shortcuts = document.getElementById("shortcuts");
const { csrf, rater } = document.body.dataset;
const pass = { createHTML: (html) => html };
const policy = window.trustedTypes?.createPolicy("page", pass) ?? pass;
const outbox = new Outbox(`unsent-${rater}`, post, (state) =>
  state === "sending" ? say("Saving …", "busy") : say(`${trouble()} Your answer is kept; trying again …`, "trouble"),
);

let task = null; // the <section> that asks
let ranking = null;
let draft = null;
let busy = false; // an answer is on its way, or the next question is
let looks = 0;
let timer = 0;
let clock = null;

function post(path, body, keepalive = false) {
  return fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
    body: JSON.stringify(body),
    keepalive,
    signal: AbortSignal.timeout(20000),
  });
}

// How it stands, for eyes and for screen readers
function say(text, state = "") {
  if (status.textContent !== text) status.textContent = text;
  status.dataset.state = state;
}

const trouble = () => (navigator.onLine ? "The server does not answer." : "Offline.");

// What is asked

// Show what the server asks next. In the background it is tried once, and shown if there is something to do.
async function ask(inBackground = false) {
  clearTimeout(timer);
  let response;
  for (let pause = 1000; ; pause = Math.min(2 * pause, 15000)) {
    response = await post("/task", {}).catch(() => null);
    if (response && response.status < 500) break;
    if (inBackground) return lookLater();
    say(`${trouble()} Trying again …`, "trouble");
    await untilOnline(pause);
  }
  if (response.status === 401) return location.reload();
  if (!response.ok) return say(await refusal(response), "trouble");
  const next = document.createElement("template");
  next.innerHTML = policy.createHTML(await response.text());
  const isDone = next.content.querySelector(".task").dataset.kind === "done";
  if (inBackground && isDone) return lookLater();
  show(next.content);
  if (inBackground) say("There is something to do.");
  else document.getElementById("question").focus({ preventScroll: true });
  if (isDone) lookLater();
  else renewLater();
}

function show(content) {
  main.replaceChildren(content);
  main.removeAttribute("aria-busy");
  scrollTo(0, 0);
  task = main.querySelector(".task");
  clock = new Clock();
  showProgress(task.dataset);
  const hint = document.getElementById("draft");
  draft = new Draft(rater, Number(task.dataset.assignment), post, (text) => hint && (hint.textContent = text));
  const list = task.querySelector(".ranking");
  if (list) list.dataset.draft = draft.unsaved() ?? list.dataset.draft;
  ranking = list && new Ranking(list, () => draft.change(ranking.draft()), say);
  const written = task.querySelector("#response");
  if (written) written.value = draft.unsaved() ?? written.value;
  written?.addEventListener("input", () => draft.change(written.value));
}

function showProgress({ votes, needed, mine }) {
  const bar = document.getElementById("bar");
  bar.max = Math.max(Number(needed), 1);
  bar.value = Number(votes);
  const own = mine === votes ? "" : `, ${mine} yours`;
  document.getElementById("count").textContent = Number(needed) ? `${votes} of ${needed}${own}` : "";
}

// Nothing to do: look again by and by. Something to do: hold the place while the page is looked at.

function lookLater() {
  const pause = LOOK_AGAIN[Math.min(looks++, LOOK_AGAIN.length - 1)];
  timer = setTimeout(() => (document.hidden ? lookLater() : ask(true)), pause);
}

function renewLater() {
  looks = 0;
  timer = setTimeout(() => {
    if (!document.hidden && !busy) post("/api/assign", {}).catch(() => null);
    renewLater();
  }, RENEW);
}

// What is answered

async function send(path, body, button, done) {
  if (busy) return;
  busy = true;
  main.setAttribute("aria-busy", "true");
  button?.classList.add("chosen");
  if (path !== "/api/vote") await draft?.save();
  const response = await outbox.deliver(path, body);
  const problem = response.ok ? "" : await refusal(response);
  if (response.status === 401 || response.status === 403) return say(`${problem} Your answer is kept here.`, "trouble");
  if (task && [400, 413, 422].includes(response.status)) {
    // to be mended by the rater
    button?.classList.remove("chosen");
    main.removeAttribute("aria-busy");
  } else {
    draft?.forget();
    await ask();
  }
  busy = false;
  if (problem) say(problem, "trouble");
  else say(done, "good");
}

async function refusal(response) {
  try {
    const { detail } = await response.json();
    return typeof detail === "string" ? detail : detail.map((problem) => problem.msg).join("; ");
  } catch {
    return `The server refuses (${response.status}). Reload the page.`;
  }
}

function vote(answer, button) {
  const body = {
    assignment: Number(task.dataset.assignment),
    answer,
    key: newKey(),
    reason: task.querySelector("#reason")?.value.trim() ?? "",
    seconds: clock.seconds(),
  };
  return send("/api/vote", body, button, "Saved");
}

const actions = {
  undo: (button) => send("/api/undo", { key: newKey() }, button, "Taken back. Answer anew."),
  release: (button) => send("/api/release", { assignment: Number(task.dataset.assignment) }, button, "Skipped"),
  submit: (button) => (ranking ? handInOrder(button) : handInText(button)),
};

function handInOrder(button) {
  if (ranking.touched) return vote({ ranks: ranking.ranks() }, button);
  ranking.touched = true;
  say("You have moved no answer. Press once more if this is your order.", "trouble");
}

function handInText(button) {
  const written = task.querySelector("#response");
  if (written.value.trim()) return vote({ response: written.value }, button);
  say("Write an answer first.", "trouble");
  written.focus();
}

// How long the question has been in sight
class Clock {
  constructor() {
    this.spent = 0;
    this.since = document.hidden ? null : performance.now();
  }

  seconds() {
    return Math.round(this.spent + (this.since === null ? 0 : performance.now() - this.since)) / 1000;
  }

  look(hidden) {
    this.spent = this.seconds() * 1000;
    this.since = hidden ? null : performance.now();
  }
}

// Keys and buttons

function press(button) {
  if (button.dataset.answer) vote(JSON.parse(button.dataset.answer), button);
  else if (button.dataset.action) actions[button.dataset.action](button);
  else if (button.dataset.opens) document.getElementById(button.dataset.opens).showModal();
}

function onKey(event) {
  if (document.querySelector("dialog[open]") || event.isComposing || event.repeat || event.defaultPrevented) return;
  const handIn = event.key === "Enter" && task?.querySelector("[data-action=submit]");
  const field = event.target.closest("input, textarea");
  if (field) {
    if (handIn && (event.ctrlKey || event.metaKey)) return take(event, () => press(handIn));
    if (event.key === "Escape" || (event.key === "Enter" && field.localName === "input")) take(event, () => field.blur());
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (handIn && !event.target.closest("button, a")) return take(event, () => press(handIn));
  if (!shortcuts.checked) return;
  const first = task?.querySelector(".ranking > li");
  if (first && ["ArrowDown", "ArrowUp"].includes(event.key)) return take(event, () => first.focus());
  const target = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]:enabled`);
  if (target) take(event, () => (target.localName === "button" ? press(target) : target.focus()));
}

function take(event, action) {
  event.preventDefault();
  action();
}

document.addEventListener("keydown", onKey);
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) press(button);
});
document.addEventListener("visibilitychange", () => clock?.look(document.hidden));
addEventListener("pagehide", () => draft?.save(true));
shortcuts.checked = kept("keys") !== "off";
shortcuts.addEventListener("change", () => keep("keys", shortcuts.checked ? null : "off"));

// Guidelines open by themselves until this browser has seen them, and again when they have changed.
const guidelines = document.getElementById("guidelines");
const written = guidelines.querySelector(".text")?.textContent;
guidelines.addEventListener("close", () => keep("guidelines", written ?? null));
if (written && kept("guidelines") !== written) guidelines.showModal();

// An answer that an earlier page could not send goes first.
const left = outbox.left();
if (left) send(left.path, left.body, null, "Saved what was left to send.");
else ask();
