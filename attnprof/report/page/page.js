"use strict";
// Tables sort and filter, charts are drawn when they come into view or go to paper, in the colours that the system asks for.

const COLLATOR = new Intl.Collator("en", { numeric: true });

function keyOf(cell, numbers) {
  return numbers ? Number(cell.dataset.value ?? NaN) : cell.textContent.trim();
}

// Rows by one column; what has no number stays last in both directions.
function sortBy(table, head) {
  const heads = [...head.parentElement.children];
  const at = heads.indexOf(head);
  const numbers = head.classList.contains("number");
  const descending = head.getAttribute("aria-sort") === "ascending";
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, key: keyOf(row.cells[at], numbers) }));
  rows.sort((a, b) => {
    if (numbers && (Number.isNaN(a.key) || Number.isNaN(b.key))) {
      return Number(Number.isNaN(a.key)) - Number(Number.isNaN(b.key));
    }
    const order = numbers ? a.key - b.key : COLLATOR.compare(a.key, b.key);
    return descending ? -order : order;
  });
  body.append(...rows.map((each) => each.row));
  heads.forEach((each) => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const head of table.tHead.rows[0].cells) {
    const text = head.querySelector(".head");
    const button = document.createElement("button");
    button.type = "button";
    button.append(...text.childNodes);
    text.append(button);
    button.addEventListener("click", () => sortBy(table, head));
  }
}

const filter = document.getElementById("filter");
const found = document.getElementById("found");

function showMatching() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  let all = 0;
  for (const row of document.querySelectorAll("#tables tbody tr")) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    all += 1;
    shown += row.hidden ? 0 : 1;
  }
  found.value = words.length ? `${shown} of ${all} rows` : "";
}

filter.parentElement.hidden = false;
filter.addEventListener("input", showMatching);

const { specs, panels, themes } = JSON.parse(document.getElementById("attnprof-charts").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map(); // element -> what vega-embed gave, to be let go before it is drawn again

// A panel's Vega-Lite: a spec that several panels share, and its own rows, which stand in the page column by column.
function specOf({ spec, said, rows }) {
  const datasets = {};
  for (const [name, columns] of Object.entries(rows)) {
    if (Array.isArray(columns)) {
      datasets[name] = columns;
      continue;
    }
    const fields = Object.entries(columns).map(([field, column]) => [
      field,
      Array.isArray(column) ? column : column.at.map((i) => column.of[i]),
    ]);
    datasets[name] = fields[0][1].map((_, i) => Object.fromEntries(fields.map(([field, values]) => [field, values[i]])));
  }
  return { ...specs[spec], description: said, datasets };
}

// `ast` has vega interpret its expressions, so that the page's policy need not allow eval.
async function draw(element) {
  const options = {
    mode: "vega-lite",
    renderer: "svg",
    actions: false,
    ast: true,
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
    config: dark.matches ? themes.dark : themes.light,
  };
  drawn.get(element)?.finalize();
  drawn.set(element, await vegaEmbed(element, specOf(panels[Number(element.dataset.panel)]), options));
}

const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        watcher.unobserve(entry.target);
        draw(entry.target);
      }
    }
  },
  { rootMargin: "600px" },
);
document.querySelectorAll(".drawing").forEach((element) => watcher.observe(element));

// Nobody scrolls paper: what has not come into view is drawn before the page is printed.
addEventListener("beforeprint", () => {
  for (const element of document.querySelectorAll(".drawing")) {
    if (!drawn.has(element) && element.checkVisibility()) {
      watcher.unobserve(element);
      draw(element);
    }
  }
});
dark.addEventListener("change", () => [...drawn.keys()].forEach(draw));

for (const article of document.querySelectorAll("article.chart")) {
  const select = article.querySelector("select");
  if (select) {
    const variants = [...article.querySelectorAll(".variant")];
    const choose = () => variants.forEach((each, i) => { each.hidden = i !== Number(select.value); });
    const change = () => {
      choose();
      dispatchEvent(new Event("resize")); // a chart as wide as its place looks how wide that is
    };
    select.parentElement.hidden = false;
    select.addEventListener("change", change);
    choose();
  }
}
