// The page: its state is its address, and everything on it is drawn from that.
import { api } from "./api.js";
import { card, h, nameOf, photo, suggest } from "./cards.js";
import { forget, keep, picture, watchPictures } from "./picture.js";
import { watchKeys } from "./keys.js";
import { map } from "./map.js";

const $ = (id) => document.getElementById(id);
const WORDS = { multimodal: "text and picture", text: "text alone", image: "picture alone" };
const PAGE = 48, MOST = 40 * PAGE, K = 18, FOLD = 0.97;
let served = null, drawing = 0, votes = {};

const state = () => {
  const p = new URLSearchParams(location.search);
  const columns = (p.get("columns") || "").split("~").map((c) => c.split("!")).filter(([i, v]) => served.indexes.some((x) => x.name === i && x.views.includes(v)));
  const index = columns[0]?.[0] || (served.indexes.some((x) => x.name === p.get("index")) ? p.get("index") : served.indexes[0]?.name);
  return { id: p.get("id"), q: p.get("q") || "", picture: p.get("picture"), category: p.get("category") || "", trail: p.getAll("from"), why: p.has("why"), fold: p.has("fold"), map: p.has("map"),
    index, columns: columns.length ? columns : [[index, "multimodal"]], shown: Math.min(Math.max(Number(p.get("shown")) || PAGE, PAGE), MOST) };
};

function address(values) {
  const s = { ...state(), ...values };
  const p = new URLSearchParams();
  for (const name of ["id", "q", "picture", "category"]) if (s[name]) p.set(name, s[name]);
  s.trail.slice(-12).forEach((id) => p.append("from", id));
  for (const name of ["why", "fold", "map"]) if (s[name]) p.set(name, "1");
  const columns = s.columns.map((c) => c.join("!")).join("~");
  if (s.shown > PAGE && !s.id && !s.q && !s.picture) p.set("shown", s.shown);
  if (columns !== `${served.indexes[0]?.name}!multimodal`) p.set("columns", columns);
  return p.size ? `?${p}` : "./";
}

function go(values, replace = false) {
  history[replace ? "replaceState" : "pushState"](null, "", address(values));
  draw();
}

const walk = (id) => { const s = state(); return address({ id, q: "", picture: null, map: false, trail: s.id && s.id !== id ? [...s.trail, s.id] : s.trail }); };
const say = (text, bad = false) => { $("status").textContent = text; $("status").classList.toggle("bad", bad); };

async function draw() {
  const mine = ++drawing, s = state();
  drawTools(s);
  $("query").value = s.q;
  $("results").setAttribute("aria-busy", "true");
  try {
    const asks = s.id || s.q || s.picture;
    if (asks) say("Searching …");
    const [asked, trail] = await Promise.all([drawAsked(s), drawTrail(s)]);
    if (mine !== drawing) return; // another one was asked for meanwhile
    const found = asks ? await neighbours(s) : await browse(s);
    if (mine !== drawing) return;
    $("asked").replaceChildren(...asked);
    $("trail").replaceChildren(...trail);
    $("results").replaceChildren(found);
  } catch (problem) {
    if (mine !== drawing) return;
    say(problem.message, true);
    $("results").replaceChildren();
    $("more").hidden = true;
  } finally {
    if (mine === drawing) $("results").removeAttribute("aria-busy");
  }
}

function drawTools(s) {
  const own = served.indexes.find((x) => x.name === s.index);
  const names = Object.entries(own?.categories || {});
  $("category").replaceChildren(h("option", { value: "" }, "all"), ...names.map(([name, count]) => h("option", { value: name, selected: name === s.category }, `${name} (${count})`)));
  $("category").closest("label").hidden = !names.length;
  const asks = Boolean(s.id || s.q || s.picture);
  const every = served.indexes.flatMap((x) => (asks ? x.views : x.views.slice(0, 1)).map((view) => [x.name, view]));
  const chosen = new Set(s.columns.map((c) => c.join("!")));
  const label = ([index, view]) => (!asks ? index : served.indexes.length > 1 ? `${index}: ${WORDS[view]}` : WORDS[view]);
  $("views").firstElementChild.textContent = asks ? "Side by side" : "Index";
  $("views").replaceChildren($("views").firstElementChild, ...every.map((c) => h("label", {}, asks
    ? h("input", { type: "checkbox", checked: chosen.has(c.join("!")), onchange: () => toggle(c) })
    : h("input", { type: "radio", name: "index", checked: c[0] === s.index, onchange: () => go({ columns: [c], category: "", shown: PAGE }) }), label(c))));
  $("fold").checked = s.fold;
  $("map").checked = s.map;
  $("map").closest("label").hidden = asks;
  $("views").hidden = every.length < 2;
  $("whys").hidden = !asks || !served.indexes.some((x) => x.views.length > 1);
  $("fold").closest("label").hidden = !asks;
  $("why").checked = s.why;
}

function toggle(column) {
  const s = state(), key = column.join("!");
  const left = s.columns.filter((c) => c.join("!") !== key);
  const order = served.indexes.flatMap((x) => x.views.map((view) => `${x.name}!${view}`));
  const columns = left.length < s.columns.length ? left : [...left, column].sort((a, b) => order.indexOf(a.join("!")) - order.indexOf(b.join("!")));
  go({ columns: columns.length ? columns : s.columns });
}

async function drawAsked(s) {
  if (s.id) {
    const { items: [item] } = await api.items({ id: [s.id], index: s.index });
    const facts = [item.id, item.category, item.title ? item.topics.join(", ") : ""].filter((x) => x && x !== nameOf(item));
    return [photo(item, s.index).firstElementChild || photo(item, s.index), h("div", { class: "words" }, h("h2", {}, nameOf(item)), h("p", { class: "soft" }, facts.join(" · ")), item.content ? h("p", {}, item.content) : null)];
  }
  const drawn = s.picture ? picture(s.picture) : null;
  if (!s.picture) return [];
  if (!drawn) throw new Error("The picture of this address is not kept in this tab: drop it here again.");
  const remove = h("button", { type: "button", onclick: () => { forget(s.picture); go({ picture: null }); } }, "Remove the picture");
  return [h("img", { src: drawn.url, alt: "The picture that is searched by" }), h("div", { class: "words" }, h("h2", {}, s.q || "Your picture"), remove)];
}

async function drawTrail(s) {
  if (!s.trail.length || !s.id) return [];
  const known = await api.items({ id: s.trail, index: s.index }).catch(() => ({ items: s.trail.map((id) => ({ id })) }));
  const links = known.items.map((item, n) => h("li", {}, h("a", { href: address({ id: item.id, trail: s.trail.slice(0, n) }) }, nameOf(item))));
  return [h("ol", {}, h("li", {}, h("a", { href: "./" }, "Catalogue")), ...links)];
}

async function browse(s) {
  const mine = drawing;
  const count = served.indexes.find((x) => x.name === s.index)?.items ?? 0;
  say(s.category ? `Items of ${s.category}. Choose one to see what is similar.` : `${count.toLocaleString("en")} items. Choose one to see what is similar.`);
  $("more").hidden = true;
  if (s.map) return map(s.index, s.category, (id) => { history.pushState(null, "", walk(id)); draw(); });
  const list = h("ul", { class: "cards" });
  const add = async () => {
    const { items } = await api.items({ category: s.category, index: s.index, offset: list.children.length, limit: PAGE });
    if (mine !== drawing) return false;
    list.append(...items.map((item) => card(item, { index: s.index, link: walk(item.id) })));
    return items.length === PAGE;
  };
  let more = await add();
  while (more && list.children.length < s.shown) more = await add();
  if (mine !== drawing) return list;
  $("more").hidden = !more;
  $("more").onclick = async () => {
    const left = await add();
    if (mine !== drawing) return;
    $("more").hidden = !left;
    history.replaceState(null, "", address({ shown: list.children.length }));
  };
  return list;
}

async function neighbours(s) {
  const mine = drawing;
  $("more").hidden = true;
  const drawn = s.picture ? picture(s.picture) : null;
  const own = s.id ? { id: s.id } : s.q ? { item: { title: s.q } } : {};
  const body = { ...own, k: K, ...(s.fold ? { fold: FOLD } : {}), ...(s.category ? { filter: { category: s.category } } : {}) };
  const views = (index) => served.indexes.find((x) => x.name === index).views;
  const ask = ([index, view]) => api.recommend({ ...body, index, view, explain: s.why && Boolean(s.id) && views(index).length > 1 }, s.id ? null : drawn?.blob);
  const answers = await Promise.allSettled(s.columns.map(ask));
  if (answers.every((a) => a.status === "rejected")) throw answers[0].reason;
  const known = s.id && served.feedback ? (await api.votes(s.id)).votes : votes;
  if (mine !== drawing) return null;
  votes = known;
  const first = new Set(answers[0].value?.neighbours.map((n) => n.id));
  const many = s.columns.length > 1;
  const columns = s.columns.map(([index, view], n) => {
    const title = many ? h("h2", {}, WORDS[view], served.indexes.length > 1 ? h("small", {}, index) : null) : null;
    if (answers[n].status === "rejected") return h("section", {}, title, h("p", { class: "soft" }, answers[n].reason.message));
    const cards = answers[n].value.neighbours.map((item, place) =>
      card(item, { index, link: walk(item.id), rank: place + 1, only: many && n > 0 && !first.has(item.id), votes, onvote: s.id && served.feedback ? (id, vote) => cast(s, index, id, vote) : null }));
    return h("section", { "aria-label": `${WORDS[view]}, ${index}` }, title, h("ol", { class: "cards" }, ...cards));
  });
  const counts = answers.map((a) => a.value?.neighbours.length ?? 0);
  say(Math.max(...counts) ? `${Math.max(...counts)} similar items${many ? " in each column" : ""}, best first.` : "Nothing is similar here: another category?");
  const made = h("div", { class: `columns${many ? " many" : ""}` }, ...columns);
  made.style.setProperty("--columns", s.columns.length);
  return made;
}

async function cast(s, index, target, vote) {
  try {
    served.feedback = await api.vote({ query: s.id, target, vote, index });
  } catch (problem) { say(problem.message, true); return; }
  votes[target] = vote;
  document.querySelectorAll(`.item[data-id="${CSS.escape(target)}"] .thumbs button`).forEach((b) => b.setAttribute("aria-pressed", String(Number(b.dataset.vote) === vote)));
  drawVotes();
}

function drawVotes() {
  const f = served.feedback;
  $("votekeys").hidden = !f;
  $("votes").textContent = f ? ` · ${f.up} pairs, ${f.down} thumbs down${f.waiting ? `, ${f.waiting} of them wait for a thumb up of the same item` : ""}` : "";
}

function highlight(event) {
  const id = event.target.closest?.(".item")?.dataset.id;
  document.querySelectorAll(".columns.many .item").forEach((other) => other.classList.toggle("twin", other.dataset.id === id));
}

async function search() {
  const text = $("query").value.trim(), s = state();
  if (text) {
    const exact = await api.items({ id: [text], index: s.index }).catch(() => null);
    if (exact) { go({ id: text, q: "", picture: null, trail: [] }); return; }
  }
  go({ q: text, id: null, trail: [] });
}

async function start() {
  try { served = await api.catalogue(); } catch (problem) { say(problem.message, true); return; }
  if (!served.indexes.length) { say("No index is served: n2kit serve --index FOLDER. The API of embeddings works."); return; }
  const reads = served.indexes.some((x) => x.new_items);
  $("query").placeholder = reads ? "Search by text" : "An item's id or title";
  for (const id of ["upload", "camera"]) $(id).hidden = !reads;
  drawVotes();
  $("search").addEventListener("submit", (event) => { event.preventDefault(); search(); });
  let typed = 0;
  $("query").addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(() => suggest($("suggestions"), $("query").value.trim(), state().index).catch(() => {}), 150); });
  $("tools").addEventListener("submit", (event) => event.preventDefault());
  $("category").addEventListener("change", () => go({ category: $("category").value, shown: PAGE }));
  $("fold").addEventListener("change", () => go({ fold: $("fold").checked }));
  $("map").addEventListener("change", () => go({ map: $("map").checked }));
  $("why").addEventListener("change", () => go({ why: $("why").checked }));
  for (const name of ["mouseover", "focusin"]) $("results").addEventListener(name, highlight);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='?'], a[href='./']");
    if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    history.pushState(null, "", link.getAttribute("href"));
    scrollTo(0, 0);
    draw().then(() => $("results").focus({ preventScroll: true }));
  });
  addEventListener("popstate", draw);
  if (reads) watchPictures(async (file) => { const kept = await keep(file); const s = state(); go({ picture: kept, id: null, trail: [], q: s.id ? "" : s.q }); });
  watchKeys();
  draw();
}

start();
