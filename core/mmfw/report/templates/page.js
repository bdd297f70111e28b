// Opens sections, follows choices, and draws what is looked at.
"use strict";

const opened = new Map(); // section id -> {data, redraw}
const readJson = (id) => JSON.parse(document.getElementById(id).textContent);

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function viewOf(data, nr) {
  if (nr === null || nr === undefined) return Promise.resolve(null);
  if (!data.unpacked[nr]) data.unpacked[nr] = unpack(data.views[nr]);
  return data.unpacked[nr];
}

// ---- counters ----

function counterRow({ name, before, after }) {
  const row = element("tr"), ratio = before ? after / before : null;
  const shown = ratio === null ? "from 0" : ratio === 0 ? "to 0" : `×${number(ratio)}`;
  const cells = [number(before), number(after), number(after - before), shown];
  row.append(element("th", name, { scope: "row" }), ...cells.map((text) => element("td", text)));
  return row;
}

// How far a ratio is from 1, either way; from and to nothing are further than any.
const distance = ({ before, after }) => (before && after ? Math.abs(Math.log(after / before)) : before === after ? 0 : 1e3 + Math.abs(after - before) / 1e15);
const sorts = {
  counter: (row) => row.name, mainline: (row) => row.before, policy: (row) => row.after,
  difference: (row) => row.after - row.before, ratio: distance,
};

function fillCounters(table, rows) {
  const key = table.dataset.sort, descending = table.dataset.descending === "true", read = sorts[key];
  const by = (a, b) => (read(a) < read(b) ? -1 : read(a) > read(b) ? 1 : a.name < b.name ? -1 : 1);
  const sorted = [...rows].sort((a, b) => (descending ? by(b, a) : by(a, b)));
  const body = element("tbody");
  body.append(...sorted.map(counterRow));
  table.querySelectorAll("tbody").forEach((old) => old.remove());
  table.append(body);
  for (const button of table.querySelectorAll("button.sort")) {
    const th = button.closest("th"), mine = button.dataset.key === key;
    if (mine) th.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else th.removeAttribute("aria-sort");
    button.querySelector("span").textContent = mine ? (descending ? " ▼" : " ▲") : "";
  }
}

function counters(section, base, chosen, title) {
  const part = section.querySelector(".counters");
  const names = [...new Set([...Object.keys(base.vmstat), ...Object.keys(chosen.vmstat)])].sort();
  const rows = names.map((name) => ({ name, before: base.vmstat[name] || 0, after: chosen.vmstat[name] || 0 }));
  const differ = rows.filter(({ before, after }) => before !== after);
  const small = differ.filter((row) => distance(row) < Math.log(1.1));
  const large = differ.filter((row) => !small.includes(row));
  const tables = part.querySelectorAll("table");
  const fill = (table, its) => {
    table.querySelectorAll("[data-title]").forEach((each) => { each.textContent = title; });
    table.closest(".box").hidden = its.length === 0;
    fillCounters(table, its);
    for (const button of table.querySelectorAll("button.sort")) {
      button.onclick = () => {
        const same = table.dataset.sort === button.dataset.key;
        table.dataset.descending = String(same ? table.dataset.descending !== "true" : button.dataset.key !== "counter");
        table.dataset.sort = button.dataset.key;
        fillCounters(table, its);
      };
    }
  };
  fill(tables[0], large);
  fill(tables[1], small);
  part.querySelector("details").hidden = small.length === 0;
  part.querySelector("summary").textContent = `${small.length} counters differ by less than 10%`;
  part.querySelector(".rest").textContent =
    `${large.length} of ${rows.length} counters differ by 10% or more, ${rows.length - differ.length} are equal.`;
}

// ---- a section ----

async function show(section) {
  const state = opened.get(section.id), { data } = state;
  const select = section.querySelector("select"), policy = select ? Number(select.value) : null;
  const turn = (state.turn = (state.turn || 0) + 1);
  const said = section.querySelector(".figures-said"), figures = section.querySelector(".figures-part");
  const nrBase = data.of[data.baseline], nrChosen = policy === null ? nrBase : data.of[policy];
  let base, chosen;
  try {
    [base, chosen] = await Promise.all([viewOf(data, nrBase), viewOf(data, nrChosen)]);
  } catch (fault) {
    said.textContent = "This browser cannot unpack the figures' data (it has no DecompressionStream); the tables are complete.";
    said.hidden = false;
    return;
  }
  if (turn !== state.turn) return;
  const notes = [];
  const baseName = data.names[data.baseline], name = policy === null ? data.names[data.baseline] : data.names[policy];
  const views = [];
  if (base) views.push({ name: baseName, view: base, base: policy !== null });
  else notes.push(`There is no run of ${baseName} to draw.`);
  if (policy !== null && policy !== data.baseline) {
    if (!chosen) notes.push(`There is no run of ${name} to draw.`);
    else if (nrChosen === nrBase) notes.push(`${name} does not act here: its run is the one of ${baseName}.`);
    else views.push({ name, view: chosen, base: false });
  }
  for (const { name: whose, view } of views) for (const text of view.said) notes.push(`${whose}: ${text}`);
  said.textContent = notes.join(" ");
  said.hidden = notes.length === 0;
  figures.hidden = views.length === 0;
  for (const each of section.querySelectorAll("[data-chosen]")) each.textContent = name;
  if (views.length) drawAll(section, data, views);
  const part = section.querySelector(".counters");
  if (part && select) {
    part.hidden = views.length < 2;
    if (views.length === 2) counters(section, base, chosen, name);
  }
}

function drawAll(section, data, views) {
  const own = (selector, has) => {
    const figure = section.querySelector(selector);
    figure.hidden = !has;
    return figure;
  };
  const timed = views.filter(({ view }) => view.t.length);
  const times = own(".times", timed.length);
  if (timed.length) {
    timeSeries(times.querySelector(".chart"), timed, data.panels);
    times.querySelector(".phases").textContent = phaseWords(timed);
    averages(times.querySelector("table"), timed, data.panels);
  }
  const mapped = views.some(({ view }) => view.heat), heat = own(".heat", mapped);
  if (mapped) heatMaps(heat.querySelector(".chart"), views);
  const counted = views.some(({ view }) => view.latency.length), latency = own(".latency", counted);
  if (counted) {
    const binned = views.some(({ view }) => view.latency.some((row) => row.nr.length));
    latency.querySelector(".chart").hidden = !binned;
    const more = binned ? latencies(latency.querySelector(".chart"), views) : 0;
    latency.querySelector(".more").textContent = more ? `${more} kinds with fewer requests are in the table only.` : "";
    latencyTable(latency.querySelector("table"), views);
  }
}

function open(section) {
  if (!opened.has(section.id)) {
    const data = readJson(`data-${section.id}`);
    data.unpacked = [];
    opened.set(section.id, { data });
    const select = section.querySelector("select");
    if (select) select.addEventListener("change", () => show(section));
  }
  return show(section);
}

function choose(section, policy) {
  const select = section.querySelector("select");
  if (select && [...select.options].some((option) => option.value === policy)) select.value = policy;
}

// A hash such as #s2-p5 names a scenario and a policy in it.
function follow(hash) {
  const match = /^#(s\d+)(?:-p(\d+))?$/.exec(hash);
  const section = match && document.getElementById(match[1]);
  if (!section) return;
  if (match[2]) choose(section, match[2]);
  if (section.tagName === "DETAILS" && !section.open) section.open = true; // its toggle event draws
  else open(section);
  const target = document.getElementById(hash.slice(1));
  if (target) target.scrollIntoView({ block: "start" });
}

function redrawAll() {
  readColours();
  for (const id of opened.keys()) {
    const section = document.getElementById(id);
    if (section.tagName !== "DETAILS" || section.open) show(section);
  }
}

function begin() {
  readColours();
  for (const section of document.querySelectorAll("details.scenario")) {
    section.addEventListener("toggle", () => { if (section.open) open(section); });
    if (section.open) open(section);
  }
  document.querySelectorAll("section.run").forEach(open);
  for (const button of document.querySelectorAll("button.choose")) {
    button.addEventListener("click", () => {
      const section = document.getElementById(button.dataset.section);
      choose(section, button.dataset.policy);
      open(section);
      section.querySelector(".chooser").scrollIntoView({ block: "start" });
      section.querySelector("select").focus({ preventScroll: true });
    });
  }
  for (const link of document.querySelectorAll("a[href^='#s']")) {
    // Following the same link twice changes no hash, so the click itself is listened to.
    link.addEventListener("click", () => follow(link.getAttribute("href")));
  }
  addEventListener("hashchange", () => follow(location.hash));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
  addEventListener("beforeprint", redrawAll);
  addEventListener("afterprint", redrawAll);
  let width = innerWidth, timer = 0;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(timer);
    timer = setTimeout(redrawAll, 200);
  });
  if (location.hash) follow(location.hash);
}
begin();
