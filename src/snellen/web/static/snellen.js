// What makes pages quicker to use. All of them work without it.
"use strict";

// A reload would call off the way to another page that somebody has just chosen.
let leaving = false;
addEventListener("beforeunload", () => { leaving = true; });
addEventListener("pageshow", () => { leaving = false; });
const reload = () => { if (!leaving) location.reload(); };

// A battle that waits for its answers is shown once both are there.
const waiting = document.querySelector("[data-wait]");
if (waiting) {
  const look = async () => {
    try {
      const reply = await fetch(waiting.dataset.wait, { headers: { accept: "application/json" } });
      if (reply.ok && (await reply.json()).answered) { reload(); return; }
    } catch { /* the server is away: try again */ }
    setTimeout(look, 700);
  };
  setTimeout(look, 400);
}

// A race is shown anew after each look.
const moved = (place, state) => "live" in place.dataset && Number(place.dataset.live) !== state.done;

// Runs under way show how far they are; one that has ended is shown as it ended.
for (const place of document.querySelectorAll("[data-progress]")) {
  const bar = place.parentElement.querySelector("progress");
  const status = place.dataset.status || "running";
  const look = async () => {
    try {
      const reply = await fetch(place.dataset.progress, { headers: { accept: "application/json" } });
      if (reply.ok) {
        const state = await reply.json();
        place.textContent = state.text;
        if (bar) bar.value = state.done;
        if (state.status !== status || moved(place, state)) { reload(); return; }
      }
    } catch { /* the server is away: try again */ }
    setTimeout(look, 2000);
  };
  setTimeout(look, 2000);
}

// Answers appear as they are written; once all are there, the page shows them as they are meant to look.
const streams = [...document.querySelectorAll("[data-stream]")];
if (streams.length) {
  const read = async (place) => {
    const reply = await fetch(place.dataset.stream);
    if (!reply.ok) throw new Error(reply.statusText);
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value.replaceAll("\u200b", "");
      if (text) place.textContent = text;
    }
  };
  Promise.all(streams.map(read)).then(
    reload,
    () => { for (const place of streams) place.textContent += " (connection lost; reload this page)"; },
  );
}

// Addresses hold what was chosen, and nothing else.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "get") return;
  for (const field of event.target.elements) {
    if (field.name && field.value === "" && !("keep" in field.dataset)) { field.disabled = true; field.dataset.empty = "yes"; }
  }
});
addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll("[data-empty]")) { field.disabled = false; delete field.dataset.empty; }
});

// Nothing is sent twice.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) { event.preventDefault(); return; }
  form.dataset.sent = "yes";
});
addEventListener("pageshow", () => { for (const form of document.forms) delete form.dataset.sent; });

// Only the rows whose heading has the text that is typed.
for (const field of document.querySelectorAll("[data-rows]")) {
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const row of document.querySelectorAll(`#${field.dataset.rows} tbody tr`)) {
      row.hidden = !row.querySelector("th").textContent.toLowerCase().includes(wanted);
    }
  });
}

// A picture as large as it is: by its button, or by a click on it, which stays where it was clicked.
for (const button of document.querySelectorAll("button.zoom")) {
  const picture = document.getElementById(button.getAttribute("aria-controls"));
  const image = picture.querySelector("img");
  button.hidden = false;
  const turn = (event) => {
    const place = image.getBoundingClientRect();
    const x = event?.offsetX !== undefined && event.target === image ? event.offsetX / place.width : 0.5;
    const y = event?.offsetY !== undefined && event.target === image ? event.offsetY / place.height : 0.5;
    const large = picture.classList.toggle("zoomed");
    button.setAttribute("aria-pressed", String(large));
    if (large) {
      picture.scrollLeft = image.clientWidth * x - picture.clientWidth / 2;
      picture.scrollTop = image.clientHeight * y - picture.clientHeight / 2;
    }
  };
  button.addEventListener("click", () => turn());
  image.addEventListener("click", turn);
}

// A file that is too large is not sent.
for (const field of document.querySelectorAll("input[type=file][data-max]")) {
  field.addEventListener("change", () => {
    const most = Number(field.dataset.max);
    const large = field.files.length && field.files[0].size > most;
    field.setCustomValidity(large ? `The limit is ${Math.floor(most / 1048576)} MiB.` : "");
    field.reportValidity();
  });
}

// Ctrl+Enter sends what is written.
for (const field of document.querySelectorAll("textarea[data-send]")) {
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); field.form.requestSubmit(); }
  });
}

// One key for each button that names one, unless somebody is writing.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select")) return;
  const target = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (target && !target.disabled) { event.preventDefault(); target.click(); }
});

// Sorting a table keeps the place on the page and what was ticked.
const kept = JSON.parse(sessionStorage.getItem("sorted") || "null");
sessionStorage.removeItem("sorted");
if (kept && kept.path === location.pathname) {
  for (const box of document.querySelectorAll("input[name=run]")) box.checked = kept.ticked.includes(box.value);
  scrollTo(0, kept.y);
}
for (const link of document.querySelectorAll("thead th a")) {
  link.addEventListener("click", () => {
    const ticked = [...document.querySelectorAll("input[name=run]:checked")].map((box) => box.value);
    sessionStorage.setItem("sorted", JSON.stringify({ path: location.pathname, y: scrollY, ticked }));
  });
}

// A table of few rows is sorted where it stands, by a click on a heading; missing figures come last.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") !== "descending" && heading.classList.contains("n");
      const up = heading.getAttribute("aria-sort") === "descending" || (!down && heading.getAttribute("aria-sort") !== "ascending");
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => {
        const text = row.cells[column].textContent.trim();
        return heading.classList.contains("n") ? parseFloat(text) : text.toLowerCase();
      };
      const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
      const missing = ([v]) => Number.isNaN(v);
      rows.sort((a, b) => missing(a) - missing(b) || (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0) * (up ? 1 : -1));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}

// A choice in a list is acted upon at once.
for (const field of document.querySelectorAll("select[data-auto]")) {
  field.addEventListener("change", () => field.form.requestSubmit());
}

// Runs of the same samples to compare; the tray says how many are ticked.
const compare = document.querySelector("form[data-compare]");
if (compare) {
  const buttons = [...compare.querySelectorAll("button[data-needs]")];
  const boxes = [...document.querySelectorAll("input[name=run]")];
  const said = compare.querySelector("[data-count]");
  const count = () => {
    const chosen = boxes.filter((box) => box.checked);
    const alike = new Set(chosen.map((box) => box.dataset.samples)).size < 2;
    for (const button of buttons) {
      const [low, high] = button.dataset.needs.split("-").map(Number);
      button.disabled = chosen.length < low || chosen.length > high || (low === 2 && !alike);
    }
    if (said && chosen.length) {
      said.textContent = `${chosen.length} selected` + (alike ? "." : ": different samples, not comparable.");
    } else if (said) { said.textContent = "Select runs in the tables."; }
  };
  for (const box of boxes) box.addEventListener("change", count);
  addEventListener("pageshow", count);
  count();
}
