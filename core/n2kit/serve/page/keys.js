// Keys: / searches, arrows go from item to item, + and - vote on the one that has the focus.
export function watchKeys() {
  addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=checkbox]), select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    if (event.key === "/") { event.preventDefault(); document.getElementById("query").focus(); return; }
    const item = document.activeElement.closest?.(".item");
    if ((event.key === "+" || event.key === "-") && item) { item.querySelector(`[data-vote="${event.key === "+" ? 1 : -1}"]`)?.click(); return; }
    const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (!step) return;
    const links = [...document.querySelectorAll(".item > a")];
    if (!item) { if (event.key === "ArrowRight") links[0]?.focus(); return; }
    const next = nearest(links, item.querySelector("a"), step);
    if (next) { event.preventDefault(); next.focus(); }
  });
}

// The nearest link in a direction, as the eye would take it.
function nearest(links, from, [x, y]) {
  const middle = (element) => { const b = element.getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]; };
  const [ox, oy] = middle(from);
  let best = null, least = Infinity;
  for (const link of links) {
    const [lx, ly] = middle(link), along = (lx - ox) * x + (ly - oy) * y, across = Math.abs((lx - ox) * y) + Math.abs((ly - oy) * x);
    const cost = along + 3 * across;
    if (along > 8 && cost < least) { best = link; least = cost; }
  }
  return best;
}
