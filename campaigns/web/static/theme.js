/* Runs before the first paint, so that a dark page does not flash white. */
(() => {
  "use strict";
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try { return localStorage.getItem("kampania-theme") || "auto"; } catch { return "auto"; }
  };
  const show = () => {
    const choice = chosen();
    root.dataset.bsTheme = choice === "auto" ? (dark.matches ? "dark" : "light") : choice;
    root.dataset.themeChoice = choice;
    root.dispatchEvent(new CustomEvent("kampania:theme"));
  };
  root.classList.add("js");
  if (location.hash) root.classList.add("jumped");
  show();
  dark.addEventListener("change", show);
  addEventListener("storage", show);
  root.addEventListener("kampania:choose-theme", (event) => {
    try { localStorage.setItem("kampania-theme", event.detail); } catch { /* private mode: for this page only */ }
    show();
  });
})();
