"use strict";
// Draws the charts from the JSON block in the page's colours, and makes tables sortable and searchable.

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function themed(layout) {
  const axis = { gridcolor: color("--grid"), zerolinecolor: color("--line"), linecolor: color("--line") };
  const whole = Object.assign({}, layout, {
    autosize: true,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: color("--ink"), size: 12, family: getComputedStyle(document.body).fontFamily },
    hoverlabel: { bgcolor: color("--card"), bordercolor: color("--line"), font: { color: color("--ink") } },
  });
  for (const name of ["xaxis", "yaxis"]) whole[name] = Object.assign({}, axis, layout[name]);
  return whole;
}

function draw(figures) {
  const config = { displaylogo: false, displayModeBar: false, responsive: true };
  const drawn = Object.entries(figures).map(([id, figure]) => {
    const place = document.getElementById("chart-" + id);
    return place ? Plotly.react(place, figure.data, themed(figure.layout), config) : null;
  });
  return Promise.all(drawn);
}

function cellValue(row, column) {
  const cell = row.cells[column];
  const value = cell.dataset.value ?? cell.textContent.trim();
  return value !== "" && !Number.isNaN(Number(value)) ? Number(value) : value;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b));
}

function sortable(table) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    head.classList.add("sortable");
    head.tabIndex = 0;
    const sort = () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = Array.from(table.tBodies[0].rows);
      rows.sort((a, b) => compare(cellValue(a, column), cellValue(b, column)) * (down ? -1 : 1));
      table.tBodies[0].append(...rows);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
}

function searchable(table) {
  const tools = document.createElement("div");
  tools.className = "tools";
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "Search this table";
  input.setAttribute("aria-label", "Search this table");
  const count = document.createElement("span");
  count.className = "count soft";
  const rows = Array.from(table.tBodies[0].rows);
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = shown + " of " + rows.length;
  };
  input.addEventListener("input", filter);
  filter();
  tools.append(input, count);
  table.parentElement.before(tools);
}

for (const table of document.querySelectorAll("table.data")) {
  for (const row of table.tBodies[0].rows) {
    Array.from(row.cells).forEach((cell, column) => {
      cell.dataset.label = table.tHead.rows[0].cells[column].textContent;
    });
  }
  searchable(table);
  sortable(table);
}

const figures = JSON.parse(document.getElementById("figures").textContent);
const redraw = () => draw(figures);
redraw().then(() => { document.documentElement.dataset.drawn = "yes"; });
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
window.matchMedia("print").addEventListener("change", redraw);
