document.documentElement.classList.add("scripted");
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => {
    const head = button.parentElement, at = head.cellIndex;
    const value = (row) => row.cells[at].dataset.v ?? row.cells[at].textContent.trim();
    const numbers = head.dataset.text === undefined;
    const down = head.getAttribute("aria-sort") === null ? numbers : head.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => [value(row), row]);
    rows.sort(([a], [b]) => (a === "") - (b === "") || (down ? -1 : 1) * (numbers ? a - b : a.localeCompare(b, undefined, { numeric: true })));
    body.append(...rows.map(([, row]) => row));
  }));
}
const filter = document.getElementById("filter");
filter?.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of document.querySelectorAll("#arms tbody tr"))
    row.hidden = !words.every((word) => row.dataset.find.toLowerCase().includes(word));
});
for (const button of document.querySelectorAll("button.copy")) button.addEventListener("click", async () => {
  const text = button.parentElement.querySelector("pre");
  try { await navigator.clipboard.writeText(text.textContent); button.textContent = "Copied"; }
  catch { getSelection().selectAllChildren(text); button.textContent = "Selected"; }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});
