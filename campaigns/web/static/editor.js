// The message editor: live preview, merge fields at the cursor, line numbers, links to lines.
// Progressive enhancement: without it the buttons "Show" and "Save" do the same.
"use strict";

(() => {
  const editor = document.querySelector("[data-editor]");
  if (!editor) return;
  const form = document.getElementById("message-form");
  const source = document.getElementById("mjml");
  const refresh = editor.querySelector("[data-refresh]");
  let lastFocused = source;
  let changed = false;
  let leaving = false; // Of two pending submissions of one form the browser performs only the later one.
  let timer = 0;
  let shown = 0;

  // The frame is replaced instead of navigated, to add no history entry for each preview, and to show the
  // old preview until the new one is loaded.
  function show() {
    if (leaving) return;
    const old = editor.querySelector(".editor-frame iframe:not(.waiting)");
    editor.querySelectorAll(".editor-frame iframe.waiting").forEach((frame) => frame.remove());
    const next = old.cloneNode(false);
    next.removeAttribute("src");
    next.classList.add("waiting");
    shown += 1;
    next.name = `preview-${shown}`; // If two frames had the same name, the form would target the old one.
    refresh.setAttribute("formtarget", next.name);
    old.after(next);
    let asked = false;
    next.addEventListener("load", () => {
      if (!asked || !next.isConnected) return;
      old.remove();
      next.classList.remove("waiting");
    });
    // Chromium fires load for the initial empty document when the frame is inserted.
    setTimeout(() => {
      if (leaving || !next.isConnected) return;
      asked = true;
      form.requestSubmit(refresh);
    });
  }

  function later() {
    clearTimeout(timer);
    timer = setTimeout(show, 600);
  }

  form.addEventListener("input", (event) => {
    if (!event.target.matches("[data-part]")) changed = true;
    later();
  });
  form.addEventListener("submit", (event) => {
    if (event.submitter !== refresh) {
      changed = false;
      leaving = true;
      return;
    }
    // app.js blocks repeated submissions; a preview does not count as one.
    setTimeout(() => delete form.dataset.sent);
  });
  window.addEventListener("pageshow", () => { leaving = false; });
  editor.querySelectorAll("[data-part]").forEach((control) => control.addEventListener("change", show));
  window.addEventListener("beforeunload", (event) => {
    if (changed) event.preventDefault();
  });

  // Merge fields
  for (const name of ["subject", "preheader", "mjml"]) {
    document.getElementById(name).addEventListener("focus", (event) => {
      lastFocused = event.target;
    });
  }
  editor.addEventListener("click", (event) => {
    const button = event.target.closest("[data-insert]");
    if (button) {
      lastFocused.focus();
      lastFocused.setRangeText(button.dataset.insert, lastFocused.selectionStart, lastFocused.selectionEnd, "end");
      lastFocused.dispatchEvent(new Event("input", { bubbles: true }));
    }
    const line = event.target.closest("[data-line]");
    if (line) {
      event.preventDefault();
      goTo(Number(line.dataset.line), Number(line.dataset.column));
    }
  });

  function goTo(line, column) {
    const lines = source.value.split("\n");
    const before = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
    const start = before + Math.min(column - 1, (lines[line - 1] || "").length);
    source.focus();
    source.setSelectionRange(start, before + (lines[line - 1] || "").length);
    source.scrollTop = Math.max(0, (line - 4) * 20);
  }

  // Line numbers
  const gutter = document.createElement("div");
  const numbers = document.createElement("div");
  gutter.className = "editor-lines";
  gutter.setAttribute("aria-hidden", "true");
  gutter.append(numbers);
  const holder = editor.querySelector("[data-source]");
  holder.classList.add("numbered");
  source.before(gutter);
  let count = 0;

  function number() {
    const lines = source.value.split("\n").length;
    if (lines !== count) {
      count = lines;
      numbers.textContent = Array.from({ length: lines }, (_unused, index) => index + 1).join("\n");
    }
    place();
  }

  function place() {
    const style = getComputedStyle(source);
    gutter.style.top = `${source.offsetTop + source.clientTop}px`;
    gutter.style.height = `${source.clientHeight}px`;
    numbers.style.transform = `translateY(${parseFloat(style.paddingTop) - source.scrollTop}px)`;
  }

  source.addEventListener("input", number);
  source.addEventListener("scroll", place);
  new ResizeObserver(place).observe(source);
  number();
})();
