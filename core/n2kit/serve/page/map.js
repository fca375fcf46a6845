// A map of the catalogue on a canvas: drag to move, wheel to come nearer, click to walk to an item.
import { api } from "./api.js";
import { h, nameOf, photo } from "./cards.js";

const HEIGHT = 560, NEAR = 14, COLOURS = ["#4477dd", "#d9822b", "#1f9d6b", "#c0479d", "#c9a400", "#15a3b8", "#d64550", "#7a5cd6"];

export async function map(index, category, walk) {
  const { items } = await api.map(index);
  const names = [...new Set(items.map((item) => item.category).filter(Boolean))].sort();
  const colour = new Map(names.map((name, n) => [name, COLOURS[n % COLOURS.length]]));
  const canvas = h("canvas", { role: "img", "aria-label": `A map of ${items.length} items by their vectors. The list has the same items.` });
  const seen = h("div", { class: "seen", "aria-hidden": "true" });
  const legend = h("ul", { class: "legend" }, ...names.slice(0, COLOURS.length).map((name) => {
    const dot = h("span", { class: "dot" });
    dot.style.background = colour.get(name);
    return h("li", {}, dot, name);
  }));
  const view = { x: 0, y: 0, zoom: 1 };
  const inside = (part) => 0.02 + 0.96 * part; // no point on the edge
  const at = (item) => [(inside(item.x) * view.zoom + view.x) * canvas.clientWidth, (inside(item.y) * view.zoom + view.y) * HEIGHT];

  function paint() {
    const scale = devicePixelRatio || 1, pen = canvas.getContext("2d");
    canvas.width = canvas.clientWidth * scale;
    canvas.height = HEIGHT * scale;
    pen.scale(scale, scale);
    for (const item of items) {
      const [x, y] = at(item);
      pen.globalAlpha = !category || item.category === category ? 0.85 : 0.12;
      pen.fillStyle = colour.get(item.category) || COLOURS[0];
      pen.beginPath();
      pen.arc(x, y, Math.min(3 + view.zoom / 2, 8), 0, 7);
      pen.fill();
    }
  }

  function nearest(event) {
    const box = canvas.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    let best = null, least = NEAR ** 2;
    for (const item of items) {
      const [x, y] = at(item), away = (x - px) ** 2 + (y - py) ** 2;
      if (away < least && (!category || item.category === category)) { best = item; least = away; }
    }
    return best;
  }

  let held = null, shown = null, moved = 0;
  canvas.addEventListener("pointerdown", (event) => { held = [event.clientX, event.clientY]; moved = 0; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", (event) => {
    const item = moved < 6 ? nearest(event) : null;
    held = null;
    if (item) walk(item.id);
  });
  canvas.addEventListener("pointercancel", () => { held = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (held) {
      const [dx, dy] = [event.clientX - held[0], event.clientY - held[1]];
      moved += Math.abs(dx) + Math.abs(dy);
      view.x += dx / canvas.clientWidth;
      view.y += dy / HEIGHT;
      held = [event.clientX, event.clientY];
      paint();
      return;
    }
    const item = nearest(event);
    canvas.style.cursor = item ? "pointer" : "grab";
    if (item === shown) return;
    shown = item;
    seen.replaceChildren(...(item ? [photo(item, index, 160), nameOf(item)] : []));
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect(), fx = (event.clientX - box.left) / box.width, fy = (event.clientY - box.top) / box.height;
    const zoom = Math.min(Math.max(view.zoom * Math.exp(-event.deltaY / 400), 1), 40), by = zoom / view.zoom;
    view.x = fx - (fx - view.x) * by;
    view.y = fy - (fy - view.y) * by;
    view.zoom = zoom;
    paint();
  }, { passive: false });
  new ResizeObserver(paint).observe(canvas);
  return h("div", { class: "map" }, canvas, seen, legend);
}
