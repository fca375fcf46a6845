// Calls of the server. A key, where one is needed, is kept for this tab alone.
const KEY = "n2kit-key";

async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...(options.headers || {}), ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401 && (await login())) return call(path, options);
  return answer;
}

async function json(path, options) {
  const answer = await call(path, options);
  const text = await answer.text();
  let body = null;
  try { body = JSON.parse(text); } catch { /* not of this server: a proxy's page */ }
  if (!answer.ok) throw new Error(body?.error?.message || `The server answers ${answer.status}.`);
  return body;
}

let asking = null;
function login() {
  asking ??= new Promise((done) => {
    const dialog = document.getElementById("login");
    dialog.addEventListener("close", () => {
      const key = document.getElementById("key").value.trim();
      sessionStorage.setItem(KEY, key);
      asking = null;
      done(Boolean(key));
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

const post = (path, body) => json(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
const query = (values) => new URLSearchParams(Object.entries(values).flatMap(([k, v]) => (Array.isArray(v) ? v : [v]).filter((x) => x !== "" && x != null).map((x) => [k, x])));

export const api = {
  catalogue: () => json("v1/catalogue"),
  items: (values) => json(`v1/items?${query(values)}`),
  map: (index) => json(`v1/map?${query({ index })}`),
  votes: (item) => json(`v1/feedback?${query({ query: item })}`),
  vote: (body) => post("v1/feedback", body),
  recommend(body, picture) {
    if (!picture) return post("v1/recommend", body);
    const form = new FormData();
    form.append("image", picture, "picture");
    form.append("request", JSON.stringify(body));
    return json("v1/recommend/upload", { method: "POST", body: form });
  },
};

// An image's address: with a key it is fetched, since an <img> cannot bring one.
export async function show(img, item, index, side) {
  const path = `v1/image?${query({ id: item, index, side })}`;
  if (!sessionStorage.getItem(KEY)) { img.src = path; return; }
  const answer = await call(path);
  if (!answer.ok) { img.dispatchEvent(new Event("error")); return; }
  img.src = URL.createObjectURL(await answer.blob());
  img.addEventListener("load", () => URL.revokeObjectURL(img.src), { once: true });
}
