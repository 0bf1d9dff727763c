"use strict";

// Decisions by key, stored in the browser if it allows that.
class Decisions {
  constructor(place) {
    this.place = place;
    this.stored = true;
    this.made = {};
    try {
      const saved = JSON.parse(localStorage.getItem(place));
      if (saved && typeof saved === "object") this.made = saved;
    } catch { this.stored = false; }
  }

  set(key, decision) {
    if (decision === null) delete this.made[key];
    else this.made[key] = decision;
    this.save();
  }

  clear() {
    this.made = {};
    this.save();
  }

  save() {
    try { localStorage.setItem(this.place, JSON.stringify(this.made)); } catch { this.stored = false; }
  }

  get warning() { return this.stored ? "" : " (browser storage is not available: download before leaving this page)"; }
}

// A letter pressed on a card, unless it belongs to a control or a shortcut.
const letterOf = event =>
  event.target.matches("select, input") || event.ctrlKey || event.metaKey || event.altKey ? "" : event.key.toLowerCase();

// Let a card be decided by its buttons, a second click on one undoing it, and by letters.
const makeDecidable = (card, decisionOfLetter, decide) => {
  const box = card.querySelector(".decide");
  box.hidden = false;
  box.addEventListener("click", event => {
    const decision = event.target.dataset.decision;
    if (decision) decide(event.target.getAttribute("aria-pressed") === "true" ? null : decision);
  });
  card.addEventListener("keydown", event => {
    const decision = decisionOfLetter[letterOf(event)];
    if (decision === undefined) return;
    event.preventDefault();
    decide(decision);
  });
};

const downloadTable = (name, rows) => {
  const field = text => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([rows.map(row => row.map(field).join(",") + "\n").join("")], {type: "text/csv"}));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
};
