// Items as people see them.
import { api, show } from "./api.js";

export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export const nameOf = (item) => item.title || item.content || item.id;

export function photo(item, index, side = 320) {
  const frame = h("span", { class: "photo" });
  if (!item.picture) { frame.textContent = "no picture"; return frame; }
  const img = h("img", { alt: `Picture: ${nameOf(item)}`, loading: "lazy", onerror: () => { frame.textContent = "picture cannot be read"; } });
  show(img, item.id, index, side);
  frame.append(img);
  return frame;
}

// What brought a neighbour: the query's text alone and its picture alone, each with the rank that it would give.
function why(reasons) {
  const { text, image } = reasons;
  if (!text || !image) return ["The query has one view alone."];
  const place = (view) => (view.rank ? `rank ${view.rank}` : "beyond 200");
  const [t, i] = [text.rank ?? 1e9, image.rank ?? 1e9];
  const by = t === i || Math.max(t, i) <= 10 ? "Text and picture both bring it." : t < i ? "The text brings it." : "The picture brings it.";
  return [by, `Without the picture: ${place(text)}`, `Without the text: ${place(image)}`];
}

export function card(item, { index, link, rank = null, only = false, votes = null, onvote = null }) {
  const facts = h("span", { class: "facts" }, item.score === undefined ? "" : h("b", { title: "cosine" }, item.score.toFixed(3)), h("span", {}, item.category || ""));
  const name = h("span", { class: "name" }, rank ? `${rank}. ${nameOf(item)}` : nameOf(item));
  const anchor = h("a", { href: link, title: item.id }, photo(item, index), name, facts);
  const below = h("div", { class: "below" });
  if (only) below.append(h("p", {}, "in this column alone"));
  if (item.folded?.length) {
    const many = `${item.folded.length} near-duplicate${item.folded.length > 1 ? "s" : ""}`;
    below.append(h("details", {}, h("summary", {}, many), h("ul", {}, ...item.folded.map((id) => h("li", {}, h("a", { href: `?id=${encodeURIComponent(id)}&index=${encodeURIComponent(index)}` }, id))))));
  }
  if (item.why) below.append(...why(item.why).map((line) => h("p", {}, line)));
  const made = h("li", { class: `item${only ? " only" : ""}`, "data-id": item.id }, anchor, below.children.length ? below : null);
  if (onvote) {
    const button = (vote, sign, words) =>
      h("button", { type: "button", "data-vote": vote, "aria-pressed": String(votes[item.id] === vote), "aria-label": `${nameOf(item)}: ${words}`, title: words,
        onclick: () => onvote(item.id, votes[item.id] === vote ? 0 : vote) }, sign);
    made.append(h("div", { class: "thumbs" }, button(1, "✓", "belongs together"), button(-1, "✕", "does not belong together")));
  }
  return made;
}

export async function suggest(list, text, index) {
  const found = text.length < 2 ? { items: [] } : await api.items({ query: text, index, limit: 8 });
  list.replaceChildren(...found.items.map((item) => h("option", { value: item.id, label: nameOf(item) })));
}
