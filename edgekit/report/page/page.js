"use strict";
// Pictures are drawn when they come into sight, and again when light turns to dark.
(function () {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map();

  function config() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const category = dark.matches
      ? ["#8ab4f8", "#f2a65a", "#6cd596", "#d7a3f7", "#ff9c92", "#9ad7e0"]
      : ["#1f5fbf", "#b45309", "#14713c", "#7b2fa8", "#b3261e", "#0b7285"];
    return {
      background: "transparent",
      font: "system-ui, sans-serif",
      axis: {
        labelColor: colour("--text"), titleColor: colour("--soft"), gridColor: colour("--line"),
        domainColor: colour("--line"), tickColor: colour("--line"), labelFontSize: 12, titleFontWeight: "normal",
      },
      legend: { labelColor: colour("--text"), titleColor: colour("--soft"), labelFontSize: 12 },
      view: { stroke: null },
      range: { category },
      rule: { color: colour("--soft") },
    };
  }

  async function draw(place) {
    const id = place.dataset.chart;
    if (drawn.has(id)) { drawn.get(id).finalize(); }
    try {
      const options = { mode: "vega-lite", renderer: "svg", actions: false, config: config(), tooltip: { theme: dark.matches ? "dark" : "light" } };
      drawn.set(id, await window.vegaEmbed(place, specs[id], options));
      place.dataset.drawn = "yes";
    } catch (error) {
      place.textContent = "This picture could not be drawn; the table beside it says the same.";
      console.error(error);
    }
  }

  const places = Array.from(document.querySelectorAll("[data-chart]"));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
    }
  }, { rootMargin: "400px" });
  places.forEach((place) => watcher.observe(place));
  dark.addEventListener("change", () => places.filter((place) => drawn.has(place.dataset.chart)).forEach(draw));
  window.addEventListener("beforeprint", () => places.filter((place) => !drawn.has(place.dataset.chart)).forEach(draw));
})();
