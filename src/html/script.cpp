#include "html/assets.h"

namespace qwenbench::html {

const std::string_view kScript = R"js(
"use strict";
(() => {
  // Okabe and Ito's colours, told apart with any colour vision; and a shape for each, for print without colour.
  const colors = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f"];
  const shapes = ["circle", "rect", "triangle", "rectRot", "cross", "star", "crossRot", "dash"];
  const dashes = [[], [6, 3], [2, 2], [8, 3, 2, 3]];
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const drawn = new Map();
  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const short = (v) => Math.abs(v) >= 1e5 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(2) : String(+v.toPrecision(4));

  // From light yellow to dark blue: readable as grey, too.
  function heat(share) {
    const stops = [[255, 247, 188], [254, 196, 79], [217, 95, 14], [122, 1, 119], [29, 6, 80]];
    const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1), i = Math.min(Math.floor(at), stops.length - 2);
    return "rgb(" + stops[i].map((v, k) => Math.round(v + (stops[i + 1][k] - v) * (at - i))).join(",") + ")";
  }

  function points(chart) {
    return chart.series.map((series, i) => ({
      label: series.name, data: series.points.map(([x, y]) => ({x, y})), names: series.labels,
      borderColor: colors[i % colors.length], backgroundColor: colors[i % colors.length],
      order: -i,  // later ones above
      showLine: chart.kind === "lines" || series.emphasized, borderWidth: series.emphasized ? 3 : 2,
      borderDash: dashes[Math.floor(i / colors.length) % dashes.length],
      pointStyle: shapes[i % shapes.length], pointRadius: chart.kind === "lines" && series.points.length > 30 ? 0 : series.radius,
      tension: 0,
    }));
  }

  function cells(chart) {
    const data = [], fill = [];
    chart.cells.forEach((row, y) => row.forEach((value, x) => {
      if (value === null) return;
      data.push({x, y, value});
      fill.push(heat((value - chart.low) / (chart.high - chart.low || 1)));
    }));
    return [{label: chart.title, data, backgroundColor: fill, borderWidth: 0, pointStyle: "rect",
             pointRadius: (context) => {
               const area = context.chart.chartArea;
               if (!area) return 4;
               const columns = Math.max(...chart.cells.map((row) => row.length)), rows = chart.cells.length;
               return Math.max(2, Math.min((area.right - area.left) / columns, (area.bottom - area.top) / rows) / 1.5);
             }}];
  }

  // The range of a logarithmic axis: whole powers of ten would leave most of it empty.
  function range(chart) {
    const values = chart.series.flatMap((series) => series.points.map(([x]) => x)).filter((x) => x > 0);
    if (!chart.logarithmic || values.length === 0) return {};
    return {min: Math.min(...values) * 0.9, max: Math.max(...values) * 1.1};
  }

  function options(chart) {
    const ink = variable("--ink"), line = variable("--line");
    const axis = (text, extra) => ({title: {display: text !== "", text, color: ink}, ticks: {color: ink},
                                    grid: {color: line}, ...extra});
    const result = {
      animation: false, responsive: true, maintainAspectRatio: false, color: ink,
      interaction: {mode: "nearest", intersect: chart.kind !== "lines"},
      plugins: {legend: {display: chart.kind === "lines" || chart.kind === "points", labels: {color: ink, usePointStyle: true}},
                tooltip: {callbacks: {label: (item) => {
                  const name = item.dataset.names && item.dataset.names[item.dataIndex];
                  if (chart.kind === "heat") return chart.categories[item.raw.y] + ", layer " + item.raw.x + ": " + short(item.raw.value);
                  if (chart.kind === "intervals") return short(item.raw[0]) + " to " + short(item.raw[1]);
                  return (name || item.dataset.label) + ": " + short(item.parsed.x) + ", " + short(item.parsed.y);
                }}}},
      scales: {x: axis(chart.x, {type: chart.logarithmic ? "logarithmic" : "linear", ...range(chart)}), y: axis(chart.y, {type: "linear"})},
    };
    if (chart.kind === "intervals") {
      result.indexAxis = "y";
      result.scales.y = axis(chart.y, {type: "category"});
      result.scales.x.grid.color = (context) => context.tick && context.tick.value === 0 ? ink : line;
    }
    if (chart.kind === "heat") {
      const columns = Math.max(...chart.cells.map((row) => row.length));
      result.scales.x.min = -0.5; result.scales.x.max = columns - 0.5; result.scales.x.grid.display = false;
      result.scales.x.ticks.callback = (value) => Number.isInteger(value) ? value : "";
      result.scales.y = axis(chart.y, {type: "linear", reverse: true, min: -0.5, max: chart.cells.length - 0.5,
                                       ticks: {color: ink, stepSize: 1, autoSkip: false,
                                               callback: (value) => chart.categories[value] || ""}});
      result.scales.y.afterBuildTicks = (scale) => { scale.ticks = chart.categories.map((_, value) => ({value})); };
      result.scales.y.grid.display = false;
    }
    return result;
  }

  function configuration(chart) {
    if (chart.kind === "intervals") {
      return {type: "bar", options: options(chart),
              data: {labels: chart.categories,
                     datasets: [{label: chart.title, data: chart.intervals, centers: chart.centers,
                                 backgroundColor: colors[0], barPercentage: 0.4, minBarLength: 3}]},
              plugins: [{id: "centers", afterDatasetsDraw: (drawing) => {
                const context = drawing.ctx;
                context.save();
                context.fillStyle = variable("--ink");
                drawing.getDatasetMeta(0).data.forEach((bar, i) => {
                  const x = drawing.scales.x.getPixelForValue(chart.centers[i]);
                  context.fillRect(x - 1.5, bar.y - 8, 3, 16);
                });
                context.restore();
              }}]};
    }
    return {type: "scatter", options: options(chart), data: {datasets: chart.kind === "heat" ? cells(chart) : points(chart)}};
  }

  function draw() {
    for (const chart of charts) {
      const old = drawn.get(chart.id);
      if (old) old.destroy();
      drawn.set(chart.id, new Chart(document.getElementById(chart.id), configuration(chart)));
    }
    document.documentElement.dataset.charts = drawn.size;
  }
  const stop = () => heat(1) && document.querySelectorAll(".scale i").forEach((bar) => {
    bar.style.background = "linear-gradient(to right, " + [0, .25, .5, .75, 1].map(heat).join(",") + ")";
  });
  draw();
  stop();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  // Paper has no closed details, and its own size.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((details) => { details.open = true; });
    draw();
  });
  addEventListener("afterprint", () => { closed.forEach((details) => { details.open = false; }); draw(); });
})();
)js";

}  // namespace qwenbench::html
