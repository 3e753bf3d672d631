// K answers in order: by dragging, by keys, by buttons. `tiers` holds the cards from the best to the worst, those that are tied
// together in one tier; `unranked` those that cannot be ranked, which stand below.

export class Ranking {
  // changed() is called after every move; announce(text) tells screen readers.
  constructor(list, changed, announce) {
    this.list = list;
    this.changed = changed;
    this.announce = announce;
    this.cards = [...list.children]; // in the order shown, whatever the rater makes of it
    this.tiers = this.cards.map((card) => [card]);
    this.unranked = [];
    this.touched = false;
    this.restore(list.dataset.draft);
    this.show();
    list.addEventListener("click", (event) => this.onClick(event));
    list.addEventListener("keydown", (event) => this.onKey(event));
    list.addEventListener("pointerdown", (event) => this.onPointer(event));
  }

  // ranks()[i] is the rank of the answer shown at place i: 1 for the best, equal for ties, null for "cannot rank".
  ranks() {
    return this.cards.map((card) => this.tierOf(card) + 1 || null);
  }

  tierOf(card) {
    return this.tiers.findIndex((tier) => tier.includes(card));
  }

  draft() {
    const places = (cards) => cards.map((card) => this.cards.indexOf(card));
    return JSON.stringify({ tiers: this.tiers.map(places), unranked: places(this.unranked) });
  }

  restore(draft) {
    if (!draft) return;
    const { tiers, unranked } = JSON.parse(draft);
    const cards = (places) => places.map((place) => this.cards[place]);
    this.tiers = tiers.map(cards);
    this.unranked = cards(unranked);
    this.touched = true;
  }

  // Moves. Each leaves every card in exactly one tier or among the unranked.

  remove(card) {
    const others = (cards) => cards.filter((other) => other !== card);
    this.tiers = this.tiers.map(others).filter((tier) => tier.length);
    this.unranked = others(this.unranked);
  }

  rank(card, rank) {
    this.remove(card);
    this.tiers.splice(rank - 1, 0, [card]);
  }

  up(card) {
    const tier = this.tierOf(card);
    if (tier < 0) return this.rank(card, this.tiers.length + 1);
    const alone = this.tiers[tier].length === 1;
    this.rank(card, Math.max(alone ? tier : tier + 1, 1));
  }

  down(card) {
    const tier = this.tierOf(card);
    if (tier >= 0) this.rank(card, tier + 2);
  }

  // Join what stands above, with all that the card is tied with; or part from it again.
  tie(card) {
    const tier = this.tierOf(card);
    const at = this.tiers[tier]?.indexOf(card);
    if (at > 0) this.tiers.splice(tier, 1, this.tiers[tier].slice(0, at), this.tiers[tier].slice(at));
    else if (tier > 0) this.tiers.splice(tier - 1, 2, [...this.tiers[tier - 1], ...this.tiers[tier]]);
  }

  out(card) {
    const isOut = this.unranked.includes(card);
    this.remove(card);
    if (isOut) this.tiers.push([card]);
    else this.unranked.push(card);
  }

  // Before the index-th of the other ranked cards; between two that are tied, tied with them.
  drop(card, index) {
    this.remove(card);
    let tier = 0;
    while (tier < this.tiers.length && index >= this.tiers[tier].length) index -= this.tiers[tier++].length;
    if (index > 0) this.tiers[tier].splice(index, 0, card);
    else this.tiers.splice(tier, 0, [card]);
  }

  act(card, move, argument) {
    this[move](card, argument);
    this.touched = true;
    this.show();
    card.focus({ preventScroll: true }); // a card that moved in the document has lost it
    card.scrollIntoView({ block: "nearest" });
    this.announce(`${card.dataset.name}: ${card.querySelector(".standing").textContent}.`);
    this.changed();
  }

  show() {
    const order = [...this.tiers.flat(), ...this.unranked];
    if (order.some((card, index) => card !== this.list.children[index])) this.list.append(...order);
    const ranks = this.ranks();
    this.cards.forEach((card, place) => {
      const rank = ranks[place];
      const tier = this.tiers[rank - 1] ?? [];
      const tiedAbove = tier.indexOf(card) > 0;
      card.querySelector(".rank").textContent = rank ?? "–";
      card.querySelector(".standing").textContent =
        rank === null ? "cannot be ranked" : tier.length > 1 ? `tied for place ${rank}` : `place ${rank}`;
      card.classList.toggle("tied", tiedAbove);
      card.classList.toggle("out", rank === null);
      const tie = card.querySelector("[data-move=tie]");
      tie.setAttribute("aria-pressed", tiedAbove);
      tie.disabled = rank === null || card === order[0];
      card.querySelector("[data-move=out]").setAttribute("aria-pressed", rank === null);
    });
  }

  onClick(event) {
    const button = event.target.closest("[data-move]");
    if (!button) return;
    this.act(button.closest("li"), button.dataset.move);
    button.focus({ preventScroll: true });
  }

  onKey(event) {
    const card = event.target.closest("li");
    if (event.ctrlKey || event.metaKey) return;
    const arrow = { ArrowUp: "up", ArrowDown: "down" }[event.key];
    const digit = /^[1-9]$/.test(event.key) ? Number(event.key) : 0;
    if (arrow && (event.shiftKey || event.altKey)) this.act(card, arrow);
    else if (arrow === "up") card.previousElementSibling?.focus();
    else if (arrow === "down") card.nextElementSibling?.focus();
    else if (digit && digit <= this.cards.length) this.act(card, "rank", digit);
    else if (event.key === "=") this.act(card, "tie");
    else if (event.key === "0") this.act(card, "out");
    else return;
    event.preventDefault();
  }

  // Dragging by the handle. The list holds the pointer, because the card moves about in it.
  onPointer(event) {
    const card = event.target.closest(".handle")?.closest("li");
    if (!card || event.button) return;
    event.preventDefault();
    const { list } = this;
    let y = event.clientY;
    let moved = false;
    list.setPointerCapture(event.pointerId);
    list.classList.add("dragging"); // the answers shrink to a few lines
    card.classList.add("dragged");
    scrollBy(0, card.getBoundingClientRect().top + 24 - y);

    const follow = () => {
      const others = this.tiers.flat().filter((other) => other !== card);
      const below = others.findIndex((other) => y < middle(other));
      const index = below < 0 ? others.length : below;
      if (this.tiers.flat().indexOf(card) === index) return;
      moved = true;
      this.drop(card, index);
      this.show();
    };
    const nearEdge = setInterval(() => {
      const by = y < 96 ? -12 : y > innerHeight - 96 ? 12 : 0;
      if (!by) return;
      scrollBy(0, by);
      follow();
    }, 16);
    const move = (next) => {
      y = next.clientY;
      follow();
    };
    const end = () => {
      clearInterval(nearEdge);
      list.classList.remove("dragging");
      card.classList.remove("dragged");
      list.removeEventListener("pointermove", move);
      list.removeEventListener("lostpointercapture", end);
      if (moved) this.act(card, "stay");
    };
    list.addEventListener("pointermove", move);
    list.addEventListener("lostpointercapture", end);
  }

  stay() {}
}

function middle(card) {
  const box = card.getBoundingClientRect();
  return box.top + box.height / 2;
}
