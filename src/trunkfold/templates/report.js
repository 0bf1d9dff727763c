// Suspected labels: store decisions in the browser and export them as the files of data.relabel and data.drop.
(() => {
  const bar = document.getElementById("decisions");
  if (!bar) return;
  const cards = [...document.querySelectorAll(".suspect")];
  const choices = cards.map(card => JSON.parse(card.dataset.choice));
  const keys = choices.map(({photos}) => photos.map(photo => photo.image_id + "=" + photo.label).join("|"));
  const place = "trunkfold labels of " + bar.dataset.key;
  const decisions = new Decisions(place);

  const show = () => {
    const counts = {keep: 0, relabel: 0, drop: 0};
    cards.forEach((card, number) => {
      const made = decisions.made[keys[number]];
      if (made) counts[made.decision] += 1;
      card.toggleAttribute("data-decision", Boolean(made));
      for (const button of card.querySelectorAll("[data-decision]"))
        button.setAttribute("aria-pressed", String(made?.decision === button.dataset.decision));
      if (made?.decision === "relabel") card.querySelector("select").value = made.label;
    });
    const total = counts.keep + counts.relabel + counts.drop;
    bar.querySelector("output").textContent =
      `${total} of ${cards.length} decided: ${counts.keep} keep, ${counts.relabel} relabel, ${counts.drop} drop` +
      decisions.warning;
    for (const name of ["relabel", "drop"]) bar.querySelector(`[name=${name}]`).disabled = !counts[name];
    bar.querySelector("[name=reset]").disabled = !total;
  };
  const decide = (number, decision) => {
    const label = cards[number].querySelector("select").value;
    decisions.set(keys[number], decision && {decision, label});
    show();
  };
  const download = name => {
    const rows = [["image_id", "filename", "label", ...(name === "relabel" ? ["suggestion"] : [])]];
    choices.forEach(({photos}, number) => {
      const made = decisions.made[keys[number]];
      if (made?.decision === name) for (const {image_id, filename, label} of photos)
        rows.push([image_id, filename, label, ...(name === "relabel" ? [made.label] : [])]);
    });
    downloadTable(name + ".csv", rows);
  };

  cards.forEach((card, number) => {
    makeDecidable(card, {k: "keep", r: "relabel", d: "drop", u: null}, decision => decide(number, decision));
    card.querySelector("select").addEventListener("change", () => decide(number, "relabel"));
  });
  bar.addEventListener("click", event => {
    if (event.target.name === "reset") {
      decisions.clear();
      show();
    } else if (event.target.name) download(event.target.name);
  });
  bar.hidden = false;
  bar.querySelector("output").setAttribute("role", "status");
  show();
})();

// Mistakes: filter by true or predicted class, and sort.
(() => {
  const form = document.getElementById("filter");
  if (!form) return;
  const apply = () => {
    const wanted = form.elements.class.value, by = form.elements.sort.value;
    let shown = 0, all = 0;
    for (const gallery of document.querySelectorAll(".mistakes")) {
      const cards = [...gallery.children];
      const order = by === "sure" ? (a, b) => b.dataset.sure - a.dataset.sure
        : (a, b) => a.dataset[by].localeCompare(b.dataset[by]) || b.dataset.sure - a.dataset.sure;
      for (const card of cards.sort(order)) {
        card.hidden = wanted !== "" && ![card.dataset.truth, card.dataset.predicted].includes(wanted);
        shown += !card.hidden;
        all += 1;
        gallery.append(card);
      }
    }
    form.querySelector("output").textContent = `${shown} of ${all} shown`;
  };
  form.addEventListener("change", apply);
  form.hidden = false;
  apply();
})();
