// Pictures of the reader's own: chosen, dropped or pasted; kept in this tab by a name that the address holds.
const kept = new Map();
const PREFIX = "n2kit-picture-", MOST = 3_000_000;

export async function keep(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const name = [...bytes].reduce((a, b) => (Math.imul(a, 31) + b) >>> 0, bytes.length).toString(36);
  const url = await new Promise((done) => { const reader = new FileReader(); reader.onload = () => done(reader.result); reader.readAsDataURL(file); });
  kept.set(name, { url, blob: file });
  try { if (url.length < MOST) sessionStorage.setItem(PREFIX + name, url); } catch { /* no room: it is there until the tab is left */ }
  return name;
}

export function picture(name) {
  if (!kept.has(name)) {
    const url = sessionStorage.getItem(PREFIX + name);
    if (!url) return null;
    const [head, body] = url.split(",");
    const bytes = Uint8Array.from(atob(body), (c) => c.charCodeAt(0));
    kept.set(name, { url, blob: new Blob([bytes], { type: head.slice(5).split(";")[0] }) });
  }
  return kept.get(name);
}

export function forget(name) {
  kept.delete(name);
  sessionStorage.removeItem(PREFIX + name);
}

export function watchPictures(take) {
  const first = (files) => [...(files || [])].find((file) => file.type.startsWith("image/"));
  const given = (files) => { const file = first(files); if (file) take(file); return Boolean(file); };
  for (const id of ["picture", "shot"]) {
    const input = document.getElementById(id);
    input.addEventListener("change", () => { given(input.files); input.value = ""; });
  }
  const drop = document.getElementById("drop");
  let inside = 0;
  const has = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  addEventListener("dragenter", (event) => { if (has(event)) { inside += 1; drop.hidden = false; } });
  addEventListener("dragleave", (event) => { if (has(event) && (inside -= 1) <= 0) { inside = 0; drop.hidden = true; } });
  addEventListener("dragover", (event) => { if (has(event)) event.preventDefault(); });
  addEventListener("drop", (event) => { if (!has(event)) return; event.preventDefault(); inside = 0; drop.hidden = true; given(event.dataTransfer.files); });
  addEventListener("paste", (event) => { if (given(event.clipboardData?.files)) event.preventDefault(); });
}
