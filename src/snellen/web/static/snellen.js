// What makes pages quicker to use. All of them work without it.
"use strict";

// A battle that waits for its answers is shown once both are there.
const waiting = document.querySelector("[data-wait]");
if (waiting) {
  const look = async () => {
    try {
      const reply = await fetch(waiting.dataset.wait, { headers: { accept: "application/json" } });
      if (reply.ok && (await reply.json()).answered) { location.reload(); return; }
    } catch { /* the server is away: try again */ }
    setTimeout(look, 700);
  };
  setTimeout(look, 400);
}

// Addresses hold what was chosen, and nothing else.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "get") return;
  for (const field of event.target.elements) {
    if (field.name && field.value === "") { field.disabled = true; field.dataset.empty = "yes"; }
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

// A picture as large as it is.
for (const button of document.querySelectorAll("button.zoom")) {
  const picture = document.getElementById(button.getAttribute("aria-controls"));
  button.hidden = false;
  const turn = () => {
    const large = picture.classList.toggle("zoomed");
    button.setAttribute("aria-pressed", String(large));
  };
  button.addEventListener("click", turn);
}

// One key for each button that names one, unless somebody is writing.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select")) return;
  const target = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (target && !target.disabled) { event.preventDefault(); target.click(); }
});

// Two runs to compare: no more can be chosen, and the button says what is missing.
const compare = document.querySelector("form[data-compare]");
if (compare) {
  const buttons = [...compare.querySelectorAll("button[data-needs]")];
  const boxes = [...document.querySelectorAll("input[name=run]")];
  const count = () => {
    const chosen = boxes.filter((box) => box.checked).length;
    for (const button of buttons) {
      const [low, high] = button.dataset.needs.split("-").map(Number);
      button.disabled = chosen < low || chosen > high;
    }
  };
  for (const box of boxes) box.addEventListener("change", count);
  addEventListener("pageshow", count);
  count();
}
