// Pairs of photos: decided to be the same or different, and downloaded as the file that find_copies.py --links reads.
(() => {
  const bar = document.getElementById("decisions");
  const cards = [...document.querySelectorAll(".pair")];
  const choices = cards.map(card => JSON.parse(card.dataset.choice));
  const keys = choices.map(pair => pair.map(({id, set}) => set + " " + id).join("|"));
  const decisions = new Decisions("trunkfold copies of " + bar.dataset.key);

  const show = () => {
    const made = keys.map(key => decisions.made[key]);
    cards.forEach((card, number) => {
      for (const button of card.querySelectorAll("[data-decision]"))
        button.setAttribute("aria-pressed", String(made[number] === button.dataset.decision));
    });
    const [same, different] = ["true", "false"].map(answer => made.filter(each => each === answer).length);
    bar.querySelector("output").textContent =
      `${same + different} of ${cards.length} decided: ${same} same, ${different} different` + decisions.warning;
    for (const button of bar.querySelectorAll("button")) button.disabled = !(same + different);
  };
  const decide = (number, decision) => {
    decisions.set(keys[number], decision);
    show();
  };

  cards.forEach((card, number) => {
    const slider = card.querySelector("input");
    makeDecidable(card, {s: "true", d: "false", u: null}, decision => decide(number, decision));
    if (slider) {
      slider.hidden = false;
      slider.addEventListener("input", () => {
        card.querySelector(".over img + img").style.opacity = slider.value / 100;
      });
    }
  });
  bar.addEventListener("click", event => {
    if (event.target.name === "reset") {
      decisions.clear();
      show();
    } else if (event.target.name === "links") {
      const rows = [["image_id_a", "set_a", "image_id_b", "set_b", "same"]];
      choices.forEach(([one, other], number) => {
        const made = decisions.made[keys[number]];
        if (made) rows.push([one.id, one.set, other.id, other.set, made]);
      });
      downloadTable("links.csv", rows);
    }
  });
  bar.hidden = false;
  bar.querySelector("output").setAttribute("role", "status");
  show();
})();
