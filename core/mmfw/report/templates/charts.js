// Figures of one scenario or run. Everything drawn comes from views that report/view.py packs.
"use strict";

const ORDER_COLOURS = [
  "#5b2a86", "#5a4b9f", "#4c6aab", "#3f83ac", "#3b99a5", "#45ae98", "#63c084", "#8fcf6b", "#bfd95a", "#ecd94a", "#f59e2e",
];
const CIVIDIS = [[0, "#00224e"], [0.25, "#434e6c"], [0.5, "#7d7c78"], [0.75, "#bcaf6f"], [1, "#fee838"]];
const PAGE_MIB = 1 / 256;
const CLASS_WORDS = { C0: "single page", CO: "may fail", CM: "must", CN: "no reclaim" };

let colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["bg", "fg", "muted", "line", "grid", "base", "chosen"]) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
}

// Plotly reads some markup in titles; names of plugins are text.
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const short = (text, nr) => (text.length > nr ? `${text.slice(0, nr - 1)}…` : text);

function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const of = (x, digits) => x.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  let text;
  if (size >= 1e9) text = `${of(value / 1e9, 2)}G`;
  else if (size >= 1e6) text = `${of(value / 1e6, 2)}M`;
  else if (Number.isInteger(value) || size >= 100) text = of(value, 0);
  else if (size >= 10) text = of(value, 1);
  else if (size >= 0.1) text = of(value, 2);
  else text = value.toPrecision(2);
  return text.replace("-", "\u2212");
}

// Long names may break behind an underscore or a plus.
function element(name, text, attributes) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) {
    String(text).split(/(?<=[_+])/).forEach((part, i) => {
      if (i) made.append(document.createElement("wbr"));
      made.append(part);
    });
  }
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  return made;
}

function axis(more) {
  return Object.assign({
    gridcolor: colours.grid, linecolor: colours.line, zerolinecolor: colours.grid, tickcolor: colours.line,
    tickfont: { size: 11, color: colours.muted }, automargin: false, fixedrange: coarsePointer(),
  }, more);
}
const coarsePointer = () => matchMedia("(pointer: coarse)").matches;

function layoutOf(more) {
  return Object.assign({
    paper_bgcolor: colours.bg, plot_bgcolor: colours.bg, font: { color: colours.fg, size: 12 },
    showlegend: false, hovermode: "x", dragmode: coarsePointer() ? false : "zoom", annotations: [],
    hoverlabel: { bgcolor: colours.bg, bordercolor: colours.line, font: { color: colours.fg, size: 12 } },
  }, more);
}

function draw(div, traces, layout, label) {
  div.setAttribute("role", "img");
  div.setAttribute("aria-label", label);
  return Plotly.react(div, traces, layout, { displayModeBar: false, responsive: true, showTips: false });
}

// A column of panels over one x axis; each panel {title, height, traces, axis}, each mark a line across all {x, colour, dash}.
function column(div, panels, marks, xTitle, label) {
  const above = 24, below = 46;
  const total = panels.reduce((sum, panel) => sum + panel.height + above, 0) + below;
  const inside = total - below;
  const layout = layoutOf({ height: total, margin: { l: 58, r: 10, t: 0, b: below } });
  const traces = [];
  let top = 0;
  panels.forEach((panel, i) => {
    const suffix = i ? String(i + 1) : "";
    top += above;
    const domain = [1 - (top + panel.height) / inside, 1 - top / inside].map((v) => Math.max(0, v));
    layout[`yaxis${suffix}`] = axis(Object.assign({ domain, rangemode: "tozero", nticks: 4, anchor: "x" }, panel.axis));
    layout.annotations.push({
      text: plain(short(panel.title, div.clientWidth < 500 ? 46 : 90)), showarrow: false, xref: "paper", yref: "paper", x: 0, y: domain[1],
      xanchor: "left", yanchor: "bottom", font: { size: 12, color: colours.fg },
    });
    for (const trace of panel.traces) traces.push(Object.assign({ xaxis: "x", yaxis: `y${suffix}` }, trace));
    top += panel.height;
  });
  layout.xaxis = axis({
    anchor: panels.length > 1 ? `y${panels.length}` : "y", title: { text: xTitle, font: { size: 12, color: colours.muted } },
    nticks: div.clientWidth < 500 ? 6 : 11, rangemode: "tozero",
  });
  layout.shapes = marks.map(({ x, colour, dash }) => ({
    type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, line: { color: colour, width: 1, dash },
  }));
  return draw(div, traces, layout, label);
}

const seconds = (view) => view.t.map((ms) => ms / 1000);

function freeTraces(view) {
  const x = seconds(view), traces = [];
  for (let order = 10; order >= 0; order -= 1) {
    traces.push({
      type: "scatter", mode: "lines", stackgroup: "free", name: `order ${order}`, x, y: view.orders[order].map((n) => n * PAGE_MIB),
      line: { width: 0.5, color: ORDER_COLOURS[order] }, fillcolor: ORDER_COLOURS[order], hovertemplate: "%{y:.0f} MiB",
    });
  }
  return traces;
}

// views: [{name, view, base: bool}], the baseline first; names are shown as they are.
function timeSeries(div, views, panels) {
  const wide = [], top = Math.max(...views.map(({ view }) => view.free_max)) * PAGE_MIB * 1.04;
  for (const { name, view } of views) {
    wide.push({ title: `${name}: free memory by block order, MiB`, height: 150, traces: freeTraces(view), axis: { range: [0, top] } });
  }
  for (const panel of panels) {
    const drawn = views.filter(({ view }) => view.series[panel.key]);
    if (!drawn.some(({ view }) => view.series[panel.key].some((n) => n !== 0))) continue;
    wide.push({
      title: `${panel.title}, ${panel.unit}`, height: 74, axis: {},
      traces: drawn.map(({ name, view, base }) => ({
        type: "scatter", mode: "lines", name: plain(short(name, 30)), x: seconds(view), y: view.series[panel.key],
        line: { width: base ? 1.2 : 1.6, color: base ? colours.base : colours.chosen, dash: base ? "dot" : "solid", shape: panel.rate ? "hv" : "linear" },
        hovertemplate: "%{y:.4~g}",
      })),
    });
  }
  const marks = views.flatMap(({ view, base }) => view.phases.filter(({ start }) => start > 0).map(({ start }) => (
    { x: start / 1000, colour: base ? colours.base : colours.chosen, dash: base ? "dot" : "dash" }
  )));
  return column(div, wide, marks, "virtual time, s", `Time series of ${views.map(({ name }) => name).join(" and ")}; averages are in the table below`);
}

function phaseWords(views) {
  const said = ({ view }) => view.phases.map(({ name, start, end }) => `${name} ${number(start / 1000)} to ${number(end / 1000)} s`).join(", ");
  const texts = views.filter(({ view }) => view.phases.length).map((each) => `${each.name}: ${said(each)}`);
  return texts.length ? `Lines across are where phases begin. Phases of ${texts.join("; of ")}.` : "";
}

function averages(table, views, panels) {
  const head = element("tr");
  head.append(element("th", "series", { scope: "col" }), element("th", "unit", { scope: "col", class: "text" }));
  for (const { name } of views) head.append(element("th", name, { scope: "col" }));
  const thead = element("thead"), body = element("tbody");
  thead.append(head);
  const mean = (ys) => ys.reduce((sum, y) => sum + y, 0) / ys.length;
  // A rate holds from its point to the next; behind the last there is no time.
  const meanOf = (ys, panel) => (ys ? mean(panel.rate && ys.length > 1 ? ys.slice(0, -1) : ys) : null);
  const free = ({ view }) => mean(view.t.map((_, i) => view.orders.reduce((sum, ys) => sum + ys[i], 0))) * PAGE_MIB;
  const rows = [["free memory", "MiB", free]];
  rows.push(["free memory in blocks of order 9 and 10", "MiB", ({ view }) => (mean(view.orders[9]) + mean(view.orders[10])) * PAGE_MIB]);
  for (const panel of panels) {
    if (views.some(({ view }) => view.series[panel.key])) {
      rows.push([panel.title, panel.unit, ({ view }) => meanOf(view.series[panel.key], panel)]);
    }
  }
  for (const [title, unit, read] of rows) {
    const row = element("tr");
    row.append(element("th", title, { scope: "row" }), element("td", unit, { class: "text" }));
    for (const each of views) row.append(element("td", number(read(each))));
    body.append(row);
  }
  table.querySelectorAll("thead, tbody").forEach((old) => old.remove());
  table.append(thead, body);
}

function heatMaps(div, views) {
  const drawn = views.filter(({ view }) => view.heat);
  const kinds = [["free", "free, %"], ["big", "free in order ≥ 9, %"]];
  const height = 190, above = 24, below = 46, total = kinds.length * (height + above) + below, inside = total - below;
  const layout = layoutOf({ height: total, margin: { l: 50, r: 8, t: 0, b: below }, hovermode: "closest" });
  const traces = [], gap = 0.05, width = (1 - gap * (drawn.length - 1)) / drawn.length;
  const narrow = div.clientWidth / drawn.length < 260;
  drawn.forEach(({ name, view }, i) => {
    kinds.forEach(([key, words], j) => {
      const nr = i * kinds.length + j + 1, suffix = nr > 1 ? String(nr) : "";
      const bottom = 1 - ((j + 1) * (height + above)) / inside;
      const x = [i * (width + gap), i * (width + gap) + width], y = [Math.max(0, bottom), bottom + height / inside];
      layout[`xaxis${suffix}`] = axis({
        domain: x, anchor: `y${suffix}`, nticks: narrow ? 4 : 6, matches: nr > 1 ? "x" : undefined, showgrid: false,
        showticklabels: j === kinds.length - 1,
        title: j === kinds.length - 1 ? { text: narrow ? "s" : "virtual time, s", font: { size: 12, color: colours.muted } } : undefined,
      });
      layout[`yaxis${suffix}`] = axis({
        domain: y, anchor: `x${suffix}`, matches: nr > 1 ? "y" : undefined, showticklabels: i === 0, nticks: 6, tickformat: "~s", showgrid: false,
        title: i === 0 ? { text: "pfn", standoff: 2, font: { size: 11, color: colours.muted } } : undefined,
      });
      traces.push({
        type: "heatmap", z: view.heat[key], x: view.heat.t.map((ms) => ms / 1000), y: view.heat.pfn, zmin: 0, zmax: 100,
        colorscale: CIVIDIS, showscale: false, xaxis: `x${suffix}`, yaxis: `y${suffix}`, hoverongaps: false,
        hovertemplate: "pfn %{y}, %{x} s: %{z}%<extra></extra>",
      });
      layout.annotations.push({
        text: plain(narrow ? (j ? "in order ≥ 9, %" : `${short(name, 14)}: free, %`) : `${short(name, 30)}: ${words}`), showarrow: false, xref: "paper", yref: "paper", x: x[0], y: y[1],
        xanchor: "left", yanchor: "bottom", font: { size: 12, color: colours.fg },
      });
    });
  });
  return draw(div, traces, layout, `Free share of memory by page frame number and time: ${drawn.map(({ name }) => name).join(" and ")}`);
}

const timeTick = (ns) => (ns < 1e3 ? `${ns} ns` : ns < 1e6 ? `${ns / 1e3} µs` : ns < 1e9 ? `${ns / 1e6} ms` : `${ns / 1e9} s`);

function latencyKinds(views) {
  const kinds = new Map();
  for (const { view } of views) {
    for (const row of view.latency) {
      const key = `${row.order} ${row.cls}`, had = kinds.get(key) || { order: row.order, cls: row.cls, total: 0, rows: [] };
      had.total += row.total;
      kinds.set(key, had);
    }
  }
  const sorted = [...kinds.values()].sort((a, b) => a.order - b.order || (a.cls < b.cls ? -1 : 1));
  for (const kind of sorted) {
    kind.rows = views.map(({ view }) => view.latency.find((row) => row.order === kind.order && row.cls === kind.cls) || null);
  }
  return sorted;
}
const classWords = (cls) => CLASS_WORDS[cls] || cls;

// Cumulative shares, a panel for each order and class; those with most requests if there are many.
function latencies(div, views) {
  const all = latencyKinds(views).filter((kind) => kind.rows.some((row) => row && row.nr.length));
  const most = [...all].sort((a, b) => b.total - a.total).slice(0, 8);
  const kinds = all.filter((kind) => most.includes(kind));
  const nrColumns = div.clientWidth < 420 || kinds.length < 2 ? 1 : 2, nrRows = Math.ceil(kinds.length / nrColumns);
  const height = 92, above = 24, below = 44, total = nrRows * (height + above) + below, inside = total - below;
  const layout = layoutOf({ height: total, margin: { l: 40, r: 24, t: 0, b: below }, hovermode: "closest" });
  const bins = kinds.flatMap((kind) => kind.rows.filter(Boolean).flatMap((row) => row.bin_ns));
  const low = 10 ** Math.floor(Math.log10(Math.max(1, Math.min(...bins)))), high = 10 ** Math.ceil(Math.log10(Math.max(10, 2 * Math.max(...bins))));
  const tickvals = [];
  const step = Math.log10(high / low) > (div.clientWidth / nrColumns) / 62 ? 3 : Math.log10(high / low) > (div.clientWidth / nrColumns) / 130 ? 2 : 1;
  for (let e = Math.ceil(Math.log10(low)); e <= Math.log10(high); e += 1) if (e % step === 0) tickvals.push(10 ** e);
  const traces = [], gap = nrColumns > 1 ? 0.09 : 0, width = (1 - gap * (nrColumns - 1)) / nrColumns;
  kinds.forEach((kind, i) => {
    const suffix = i ? String(i + 1) : "", at = i % nrColumns, line = Math.floor(i / nrColumns);
    const last = i + nrColumns >= kinds.length;
    const x = [at * (width + gap), at * (width + gap) + width], bottom = 1 - ((line + 1) * (height + above)) / inside;
    const y = [Math.max(0, bottom), bottom + height / inside];
    layout[`xaxis${suffix}`] = axis({
      domain: x, anchor: `y${suffix}`, type: "log", range: [Math.log10(low), Math.log10(high)], tickvals,
      ticktext: tickvals.map(timeTick), showticklabels: last, tickangle: 0,
    });
    layout[`yaxis${suffix}`] = axis({ domain: y, anchor: `x${suffix}`, range: [0, 104], tickvals: [0, 50, 100] });
    layout.annotations.push({
      text: plain(`order ${kind.order}, ${classWords(kind.cls)}`), showarrow: false, xref: "paper", yref: "paper", x: x[0], y: y[1],
      xanchor: "left", yanchor: "bottom", font: { size: 12, color: colours.fg },
    });
    kind.rows.forEach((row, which) => {
      if (!row || !row.total) return;
      const { name, base } = views[which], xs = [row.bin_ns[0]], ys = [0];
      let sum = 0;
      row.nr.forEach((nr, bin) => { sum += nr; xs.push(Math.max(row.bin_ns[bin] * 2, 1)); ys.push((100 * sum) / row.total); });
      if (xs[0] < 1) xs[0] = 1;
      xs.push(high); ys.push(100);
      traces.push({
        type: "scatter", mode: "lines", x: xs, y: ys, xaxis: `x${suffix}`, yaxis: `y${suffix}`, name: plain(short(name, 30)),
        line: { width: base ? 1.4 : 1.8, color: base ? colours.base : colours.chosen, dash: base ? "dot" : "solid" },
        hovertemplate: "%{y:.1f}% within %{customdata}", customdata: xs.map((ns) => timeTick(Number(ns.toPrecision(3)))),
      });
    });
  });
  draw(div, traces, layout, "Cumulative latency of requests for pages, by order and class; counts are in the table below");
  return all.length - kinds.length;
}

function latencyTable(table, views) {
  const body = element("tbody");
  for (const kind of latencyKinds(views)) {
    kind.rows.forEach((row, which) => {
      const line = element("tr");
      if (which === 0) line.append(element("th", `order ${kind.order}, ${classWords(kind.cls)}`, { scope: "rowgroup", rowspan: views.length }));
      line.append(element("td", views[which].name, { class: "text" }));
      const cells = row ? [number(row.total), number(row.nr_failed), row.p50, row.p99] : ["0", "0", "–", "–"];
      for (const cell of cells) line.append(element("td", cell));
      body.append(line);
    });
  }
  table.querySelectorAll("tbody").forEach((old) => old.remove());
  table.append(body);
}
