// Keeps an open page up to date. Without it every page works; one reloads.
//
// Every two seconds it asks our own server for what may have changed, already escaped, and puts exactly that in its
// place: the integrity bar, the counts, the newest decisions. It asks nothing while the page is hidden or paused, waits
// longer when the server does not answer, and says so: a page that stands still must not look alive.

"use strict";

(() => {
  const INTERVAL_MS = 2_000;
  const LONGEST_WAIT_MS = 30_000;
  const ANNOUNCE_MS = 20_000;
  const LIVE = "Live, updated as decisions arrive";

  const bar = document.querySelector("[data-live]");
  if (!bar) return;
  const url = bar.dataset.live;
  const controls = document.querySelector("[data-live-controls]");
  const status = document.querySelector("[data-live-status]");
  const pause = document.querySelector("[data-live-pause]");
  const off = document.querySelector("[data-live-off]");
  const lostNote = document.querySelector("[data-live-lost]");

  let tag = null;
  let timer = null;
  let failures = 0;
  let paused = false;
  let ended = false;
  let asOf = "";
  let arrived = 0;
  let announcedAt = 0;

  const part = (root, name) => root.querySelector(`[data-part="${name}"]`);

  function write(element, text) {
    if (element && element.textContent !== text) element.textContent = text;
  }

  const say = (text) => write(status, text);

  function replacePart(fresh, name) {
    const old = part(document, name);
    const next = part(fresh, name);
    if (!old || !next || old.innerHTML === next.innerHTML) return;
    if (old.contains(document.activeElement)) return; // do not take a link away from under the keyboard
    old.replaceChildren(...Array.from(next.childNodes)); // a fixed list: moving a node takes it out of the live one
  }

  // Rows are moved as little as possible, so that focus and selection stay where they are.
  function replaceRows(fresh) {
    const body = part(document, "rows");
    const next = part(fresh, "rows");
    if (!body || !next) return 0;
    const rows = Array.from(next.rows);
    const wanted = new Set(rows.map((row) => row.id));
    for (const row of Array.from(body.rows)) {
      if (!wanted.has(row.id) && !row.contains(document.activeElement)) row.remove();
    }
    let added = 0;
    let place = body.rows[0] || null;
    for (const row of rows) {
      const present = document.getElementById(row.id);
      if (present && present.parentNode === body) {
        place = present.nextElementSibling;
      } else {
        row.classList.add("arrived");
        body.insertBefore(row, place);
        added += 1;
      }
    }
    return added;
  }

  function announce() {
    const now = Date.now();
    if (arrived && now - announcedAt > ANNOUNCE_MS) {
      say(`Live. ${arrived} new ${arrived === 1 ? "decision" : "decisions"}, ${asOf} UTC`);
      arrived = 0;
      announcedAt = now;
    } else if (!announcedAt || failures) {
      say(LIVE);
      announcedAt = announcedAt || now;
    }
  }

  function lost(reason) {
    bar.classList.add("lost");
    say("Not live");
    write(lostNote, `${reason} What you see is ${asOf ? `as of ${asOf} UTC` : "as old as this page"}.`);
  }

  async function refresh() {
    const headers = { Accept: "text/html" };
    if (tag) headers["If-None-Match"] = tag;
    const response = await fetch(url, {
      headers,
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
      signal: AbortSignal.timeout(10_000),
    });
    if (response.status === 401 || response.status === 403) {
      ended = true;
      lost("Your login has ended; reload the page.");
      return;
    }
    if (response.status !== 304 && response.status !== 200) throw new Error(`status ${response.status}`);
    asOf = response.headers.get("Tallystick-As-Of") || "";
    if (response.status === 200) {
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      replacePart(fresh, "integrity");
      replacePart(fresh, "contained");
      replacePart(fresh, "counts");
      replacePart(fresh, "fleet");
      replacePart(fresh, "notes");
      replacePart(fresh, "paging");
      arrived += replaceRows(fresh);
      tag = response.headers.get("ETag");
    }
    bar.classList.remove("lost");
    write(lostNote, "");
    announce();
    failures = 0;
  }

  function schedule(wait) {
    clearTimeout(timer);
    if (!paused && !ended && !document.hidden) timer = setTimeout(turn, wait);
  }

  async function turn() {
    try {
      await refresh();
    } catch {
      failures += 1;
      lost("No connection to the service.");
    }
    schedule(Math.min(INTERVAL_MS * 2 ** Math.min(failures, 5), LONGEST_WAIT_MS));
  }

  if (controls) {
    controls.hidden = false;
    off.hidden = true;
    pause.addEventListener("click", () => {
      paused = !paused;
      pause.textContent = paused ? "Resume updates" : "Pause updates";
      if (paused) {
        clearTimeout(timer);
        say(`Paused${asOf ? ` at ${asOf} UTC` : ""}`);
      } else {
        announcedAt = 0;
        turn();
      }
    });
  }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else schedule(0);
  });
  say(LIVE);
  schedule(INTERVAL_MS);
})();
