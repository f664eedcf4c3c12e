/* Progressive enhancement of all pages: everything also works without JavaScript. */
(() => {
  "use strict";
  const root = document.documentElement;
  const body = document.body;
  const ownScript = document.currentScript;
  const rtl = root.dir === "rtl";
  const locale = root.lang === "fa" ? "fa-IR-u-ca-persian-nu-arabext" : root.lang;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  /* Theme buttons */
  const markCurrentTheme = () => {
    for (const button of document.querySelectorAll("[data-theme-choice]")) {
      if (button !== root) button.setAttribute("aria-pressed", String(button.dataset.themeChoice === root.dataset.themeChoice));
    }
  };
  root.addEventListener("kampania:theme", markCurrentTheme);
  markCurrentTheme();

  /* Date inputs show the browser's calendar, so the date in the user's calendar is shown next to them */
  if (root.lang === "fa") {
    const words = new Intl.DateTimeFormat(locale, { dateStyle: "long", timeZone: "UTC" });
    for (const input of document.querySelectorAll("input[type=date], input[type=datetime-local]")) {
      const dateText = document.createElement("output");
      dateText.className = "date-in-words";
      const say = () => {
        const day = new Date(`${input.value.slice(0, 10)}T00:00:00Z`);
        dateText.textContent = Number.isNaN(day.getTime()) ? "" : words.format(day);
      };
      input.closest(".input-group, .field")?.append(dateText);
      input.addEventListener("input", say);
      say();
    }
  }

  /* Scroll the current entry of menus and tabs into view; in an animation frame, to avoid an extra layout */
  requestAnimationFrame(() => {
    if (location.hash) return;
    for (const at of document.querySelectorAll(".nav-entry-link[aria-current], .page-tabs [aria-current]")) at.scrollIntoView({ block: "nearest", inline: "nearest" });
  });

  /* Toasts */
  const toastList = document.querySelector(".toasts");
  const dismissLater = (note) => {
    if (note.classList.contains("toast-danger") || note.dataset.persistent !== undefined) return;
    let timer = setTimeout(() => note.remove(), 7000);
    note.addEventListener("pointerenter", () => clearTimeout(timer));
    note.addEventListener("pointerleave", () => { timer = setTimeout(() => note.remove(), 3000); });
  };
  const toast = (text, tone = "info", persistent = false) => {
    const note = document.createElement("div");
    note.className = `toast-note toast-${tone}`;
    if (persistent) note.dataset.persistent = "";
    const words = document.createElement("span");
    words.textContent = text;
    const close = document.createElement("button");
    close.type = "button";
    close.className = "btn-close";
    close.dataset.dismiss = "";
    close.setAttribute("aria-label", body.dataset.textClose);
    note.append(words, close);
    toastList.append(note);
    dismissLater(note);
    return note;
  };
  toastList?.querySelectorAll(".toast-note").forEach(dismissLater);
  document.addEventListener("toast", (event) => toast(event.detail.text ?? event.detail.value, event.detail.tone));

  /* Confirmation dialog before irreversible actions */
  const dialog = document.getElementById("ask");
  const ask = (text, yes, tone, then) => {
    dialog.querySelector("#ask-text").textContent = text;
    const button = dialog.querySelector("[data-yes]");
    button.textContent = yes;
    button.className = `btn btn-${tone}`;
    dialog.returnValue = "";
    dialog.addEventListener("close", () => then(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  };
  document.addEventListener("submit", (event) => {
    const form = event.target;
    const by = event.submitter;
    const question = by?.dataset.confirm ?? form.dataset.confirm;
    if (!question || form.dataset.confirmed !== undefined) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const tone = by?.className.includes("danger") || !by ? "danger" : "primary";
    ask(question, by?.textContent.trim() || body.dataset.textYes, tone, (yes) => {
      if (!yes) return;
      form.dataset.confirmed = "";
      form.requestSubmit(by ?? undefined);
      delete form.dataset.confirmed;
    });
  }, true);
  document.addEventListener("htmx:confirm", (event) => {
    const { ctx, issueRequest, dropRequest } = event.detail;
    if (!ctx.confirm) return;
    event.preventDefault();
    ask(ctx.confirm, body.dataset.textYes, "danger", (yes) => (yes ? issueRequest() : dropRequest()));
  });

  /* Clicks: dismiss, copy, theme */
  document.addEventListener("click", (event) => {
    const target = event.target.closest?.("[data-dismiss], [data-copy], [data-copy-text], button[data-theme-choice]");
    if (!target) return;
    if (target.dataset.dismiss !== undefined) target.closest(".toast-note")?.remove();
    if (target.dataset.themeChoice) {
      root.dispatchEvent(new CustomEvent("kampania:choose-theme", { detail: target.dataset.themeChoice }));
    }
    if (target.dataset.copy !== undefined || target.dataset.copyText !== undefined) {
      const source = target.dataset.copy ? document.querySelector(target.dataset.copy) : null;
      const text = target.dataset.copyText ?? source?.value ?? source?.textContent ?? "";
      copy(text.trim(), source);
    }
  });
  const copy = async (text, source) => {
    try {
      await navigator.clipboard.writeText(text);
      toast(body.dataset.textCopied, "success");
    } catch { // The clipboard API needs HTTPS: select the text instead.
      source?.select?.();
    }
  };

  /* A double click must not submit a form twice. Only for forms that navigate: requests of htmx and
     submissions into a frame may be repeated at once. */
  const release = () => document.querySelectorAll("[data-sent]").forEach((form) => delete form.dataset.sent);
  document.addEventListener("submit", (event) => {
    const form = event.target;
    const target = event.submitter?.getAttribute("formtarget") ?? form.target;
    if (event.defaultPrevented || form.method !== "post" || (target && target !== "_self")) return;
    if (form.dataset.sent !== undefined) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "";
    setTimeout(() => delete form.dataset.sent, 4000); // The response may be a download, which leaves this page open.
  });
  addEventListener("pageshow", release);
  document.addEventListener("htmx:after:request", (event) => {
    delete event.detail.ctx.sourceElement?.closest("form")?.dataset.sent;
  });

  /* Menu buttons: a click elsewhere, or Escape, closes dropdown menus */
  const openOrClose = (button, open) => {
    button.setAttribute("aria-expanded", String(open));
    document.getElementById(button.dataset.opens).classList.toggle("show", open);
  };
  const openOver = () => [...document.querySelectorAll('[data-opens][aria-expanded="true"]')].filter((button) => document.getElementById(button.dataset.opens).matches(".dropdown-menu"));
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-opens]");
    for (const other of openOver()) {
      if (other !== button && !document.getElementById(other.dataset.opens).contains(event.target)) openOrClose(other, false);
    }
    if (button) openOrClose(button, button.getAttribute("aria-expanded") !== "true");
  });

  /* The overflow menu (three dots) closes like any menu */
  const openMenu = () => document.querySelector("details.more[open]");
  document.addEventListener("click", (event) => {
    const menu = openMenu();
    if (menu && !menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || dialog.open) return;
    for (const button of openOver()) { openOrClose(button, false); button.focus(); }
    const menu = openMenu();
    if (!menu) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });

  /* htmx: CSRF token, polling, and the notice shown while the server is unreachable */
  const token = document.querySelector('meta[name="csrf-token"]')?.content;
  let offline = null;
  document.addEventListener("htmx:config:request", (event) => {
    if (token) event.detail.ctx.request.headers["X-CSRFToken"] = token;
    const look = event.detail.ctx.sourceElement;
    if (!look?.matches('[hx-trigger*="every "]')) return;
    // A hidden tab does not poll; when it becomes visible, its figures are requested at once.
    if (document.hidden || (event.detail.ctx.sourceEvent?.type === "every" && isPushed(look))) event.preventDefault();
    else if (look.id) asked.set(look.id, performance.now());
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) document.dispatchEvent(new Event("seen-again"));
    listen();
  });

  /* Live updates come by server-sent events. Polling is used without a stream, when the stream stalls (a proxy may
     buffer it), and every 30 seconds in any case */
  const OFTEN = 2_000, SELDOM = 30_000, REFUSED = 60_000, SILENCE = 40_000; // The server sends at least one event every 15 s.
  const asked = new Map(); // element id → time of its last request
  const since = (at) => performance.now() - (at ?? -Infinity);
  let stream = null;
  let lastEventAt = -Infinity;
  const isPushed = (look) => look.dataset.changes && stream?.readyState === 1 && since(lastEventAt) < SILENCE && asked.has(look.id) && since(asked.get(look.id)) < SELDOM;
  const listen = () => {
    const address = document.hidden ? undefined : document.querySelector("[data-changes]")?.dataset.changes;
    if (stream?.address === address && (stream?.readyState !== 2 || since(stream.began) < REFUSED)) return;
    stream?.close();
    stream = null;
    if (!address) return;
    stream = Object.assign(new EventSource(address), { address, began: performance.now() });
    stream.addEventListener("heartbeat", () => { lastEventAt = performance.now(); });
    stream.addEventListener("changed", () => {
      lastEventAt = performance.now();
      document.querySelectorAll("[data-changes]").forEach((look) => outdated.add(look.id));
      askOutdated();
    });
  };
  const outdated = new Set();
  const askOutdated = () => { // At once, but at most every OFTEN ms.
    for (const id of outdated) {
      const look = document.getElementById(id);
      const left = OFTEN - since(asked.get(id));
      if (look && left > 0) setTimeout(askOutdated, left);
      else if (outdated.delete(id)) look?.dispatchEvent(new Event("changed"));
    }
  };
  addEventListener("pagehide", () => { stream?.close(); stream = null; });
  addEventListener("pageshow", listen);
  document.addEventListener("htmx:after:swap", listen);
  const noAnswer = () => { if (!offline?.isConnected) offline = toast(body.dataset.textOffline, "warning", true); };
  document.addEventListener("htmx:error", (event) => { if (event.detail.error instanceof TypeError) noAnswer(); });
  document.addEventListener("htmx:response:error", (event) => { if (event.detail.ctx.response.status >= 500) noAnswer(); });
  document.addEventListener("htmx:after:request", (event) => {
    if (event.detail.ctx.response?.status < 500) { offline?.remove(); offline = null; }
  });

  /* Charts */
  const drawn = new Map(); // id → { box, chart, text }
  let library = null;
  const loaded = () => (library ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = ownScript.dataset.echarts;
    script.onload = () => resolve(window.echarts);
    script.onerror = reject;
    document.head.append(script);
  }));

  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const plain = (colour) => { // Any CSS colour as rgba(), which the chart library needs to compute with it.
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
    return `rgba(${r},${g},${b},${(a / 255).toFixed(3)})`;
  };
  const variable = (name, fallback) => {
    const probe = document.createElement("i");
    probe.hidden = true;
    probe.style.color = `var(${name}, ${fallback})`;
    body.append(probe);
    const colour = plain(getComputedStyle(probe).color);
    probe.remove();
    return colour;
  };
  const toneColour = (tone, index) => {
    const order = ["primary", "amber", "blue", "rose", "violet", "slate"];
    const name = tone || order[index % order.length];
    return variable(`--chart-${name}`, `var(--tblr-${name}, var(--chart-primary))`);
  };

  const isInstant = (text) => /^\d{4}-\d\d-\d\d(T|$)/.test(text);
  const writer = (labels) => {
    if (!labels.length || !labels.every(isInstant)) return (text) => text;
    const days = labels.every((text) => text.length === 10);
    const span = new Date(labels.at(-1)) - new Date(labels[0]);
    const zone = days ? "UTC" : root.dataset.timezone || undefined;
    const style = days || span > 4 * 864e5 ? { day: "numeric", month: "short" }
      : span > 30 * 36e5 ? { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" }
      : { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
    const format = new Intl.DateTimeFormat(locale, { ...style, timeZone: zone });
    return (text) => format.format(new Date(text));
  };
  const numbers = new Intl.NumberFormat(locale);
  const compact = new Intl.NumberFormat(locale, { notation: "compact" });
  const figure = (value) => (value == null || Number.isNaN(value) ? "–" : numbers.format(value));

  // Labels at the same position would overlap: they share one line, labelled with their number.
  const lines = (marks) => [...new Set(marks.map((mark) => mark.at))].map((at) => {
    const [first, ...others] = marks.filter((mark) => mark.at === at).map((mark) => mark.name);
    return { xAxis: at, name: others.length ? `(${compact.format(others.length + 1)}) ${first}` : first };
  });

  // A label near an edge is aligned inwards.
  const labelAlign = (along) => (along > 0.8 ? (rtl ? "left" : "right") : along < 0.2 ? (rtl ? "right" : "left") : "center");

  const optionOf = (spec) => {
    const ink = variable("--tblr-body-color", "#222");
    const quiet = variable("--tblr-secondary", "#777");
    const line = variable("--tblr-border-color", "#ddd");
    const ground = variable("--tblr-bg-surface", "#fff");
    const label = writer(spec.x);
    const font = getComputedStyle(body).fontFamily;
    const bars = spec.kind === "bar";
    const shapes = ["circle", "rect", "triangle", "diamond"];
    const whole = spec.series.every((series) => series.values.every((value) => value == null || Number.isInteger(value)));
    return {
      animation: !calm.matches,
      animationDuration: 400,
      animationDurationUpdate: 300,
      textStyle: { fontFamily: font, color: ink },
      aria: { enabled: false }, // The element has its own label, and the data are also in a table.
      grid: { top: (spec.series.length > 1 ? 40 : 14) + (spec.marks?.length ? 14 : 0), bottom: 8, left: 8, right: 8, containLabel: true },
      legend: spec.series.length > 1
        ? { top: 0, [rtl ? "right" : "left"]: 0, icon: "roundRect", itemWidth: 14, itemHeight: 8, textStyle: { color: ink, fontFamily: font } }
        : { show: false },
      tooltip: {
        trigger: "axis",
        renderMode: "richText", // HTML tooltips use style attributes, which the Content-Security-Policy forbids.
        backgroundColor: ground,
        borderColor: line,
        textStyle: { color: ink, fontFamily: font, fontSize: 13 },
        axisPointer: { type: bars ? "shadow" : "line", lineStyle: { color: quiet }, shadowStyle: { opacity: 0.08 } },
        valueFormatter: figure,
      },
      xAxis: {
        type: "category",
        data: spec.x.map(label),
        inverse: rtl,
        boundaryGap: bars,
        axisLine: { lineStyle: { color: line } },
        axisTick: { show: false },
        axisLabel: { color: quiet, hideOverlap: true, fontFamily: font },
      },
      yAxis: {
        type: "value",
        position: rtl ? "right" : "left",
        minInterval: whole ? 1 : 0,
        splitLine: { lineStyle: { color: line, type: [3, 4] } },
        axisLabel: { color: quiet, fontFamily: font, formatter: (value) => compact.format(value) },
      },
      series: spec.series.map((series, index) => {
        const colour = toneColour(series.tone, index);
        return {
          name: series.name,
          type: bars ? "bar" : "line",
          data: series.values,
          color: colour,
          symbol: shapes[index % shapes.length],
          symbolSize: 7,
          showSymbol: spec.x.length < 32,
          smooth: 0.15,
          lineStyle: { width: 2.5 },
          areaStyle: bars || index ? undefined : { opacity: 0.1 },
          barMaxWidth: 34,
          itemStyle: bars ? { borderRadius: [4, 4, 0, 0] } : undefined,
          emphasis: { focus: "series" },
          markLine: index || !spec.marks?.length ? undefined : {
            silent: true,
            symbol: "none",
            lineStyle: { color: quiet, type: "dashed", width: 1 },
            label: { color: quiet, fontFamily: font, fontSize: 11, width: 110, overflow: "truncate", position: "end", distance: 4, formatter: (mark) => mark.name },
            data: lines(spec.marks).map((mark) => ({ ...mark, label: { align: labelAlign(mark.xAxis / Math.max(1, spec.x.length - 1)) } })),
          },
        };
      }),
    };
  };

  // The chart is in a box without id inside the element. After a swap the box moves into the new element, which
  // avoids flicker; and htmx copies attributes only between elements with an id, so it does not touch the box's style.
  const draw = (element) => {
    const text = element.dataset.chart;
    const known = drawn.get(element.id);
    if (known) {
      if (known.box.parentNode !== element) element.replaceChildren(known.box);
      if (known.text !== text) known.chart.setOption(optionOf(JSON.parse(text)), { replaceMerge: ["series"] });
      known.text = text;
      return;
    }
    const box = document.createElement("div");
    box.className = "chart-box";
    element.replaceChildren(box);
    const chart = window.echarts.init(box, null, { renderer: "canvas" });
    chart.setOption(optionOf(JSON.parse(text)));
    drawn.set(element.id, { box, chart, text });
    boxes.set(box, chart);
    sizes.observe(box);
  };
  // Download of a chart as an image, drawn by the browser without a request.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-chart-save]");
    const known = button && drawn.get(button.dataset.chartSave);
    if (!known) return;
    const address = known.chart.getDataURL({ type: "png", pixelRatio: 2, backgroundColor: variable("--tblr-bg-surface", "#fff") });
    const link = document.createElement("a");
    link.href = address;
    link.download = `${button.dataset.chartSave}.png`;
    link.click();
  });
  const boxes = new WeakMap();
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) if (target.isConnected) boxes.get(target)?.resize();
  });
  const charts = () => document.querySelectorAll("[data-chart]");
  // The library is large, so it is loaded when a chart becomes visible.
  const seen = new IntersectionObserver(async (entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    await loaded();
    charts().forEach(draw);
  });
  const drawAll = () => charts().forEach((element) => seen.observe(element));
  // Synchronous if the library is loaded: no frame may be painted between swap and drawing.
  const redraw = () => { if (window.echarts) charts().forEach(draw); else drawAll(); };
  // In print, a chart that is not drawn yet is replaced by its table.
  addEventListener("beforeprint", () => document.querySelectorAll(".chart:empty ~ .chart-table").forEach((table) => { table.open = true; }));
  document.addEventListener("htmx:after:swap", redraw);
  root.addEventListener("kampania:theme", () => {
    for (const { chart, text } of drawn.values()) chart.setOption(optionOf(JSON.parse(text)));
  });
  drawAll();

  /* Sections far down are fetched when scrolled near, after 12 seconds, or before printing */
  const far = document.querySelectorAll('[hx-trigger="near"]');
  let jumpedAt = location.hash ? performance.now() : -Infinity;
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.('a[href^="#"]')) return;
    root.classList.add("jumped");
    jumpedAt = performance.now();
  }, true);
  // Content inserted above a jump target must not move it out of view.
  document.addEventListener("htmx:after:swap", () => {
    if (far.length && performance.now() - jumpedAt < 4_000) document.getElementById(location.hash.slice(1))?.scrollIntoView();
  });
  const fetchFar = (section) => {
    near.unobserve(section);
    if (section.firstElementChild || coming.has(section)) return;
    coming.add(section);
    section.dispatchEvent(new Event("near"));
  };
  const coming = new Set();
  const fetchLater = (event) => { // Retry after a failed request, so that the page need not be reloaded.
    const section = event.detail.ctx?.sourceElement;
    if (coming.delete(section)) setTimeout(fetchFar, 10_000, section);
  };
  document.addEventListener("htmx:error", fetchLater);
  document.addEventListener("htmx:response:error", fetchLater);
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) fetchFar(entry.target);
  }, { rootMargin: "900px 0px" });
  // Printing does not wait for asynchronous requests, so missing sections are fetched synchronously.
  addEventListener("beforeprint", () => {
    for (const section of far) {
      if (section.firstElementChild) continue;
      const asking = new XMLHttpRequest();
      asking.open("GET", section.getAttribute("hx-get"), false);
      asking.setRequestHeader("HX-Request", "true");
      try { asking.send(); } catch { continue; }
      if (asking.status === 200) section.innerHTML = asking.responseText;
    }
  });
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("[data-print]") || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault(); // Without JavaScript the link opens the page with all sections included.
    print();
  });
  addEventListener("load", () => {
    for (const section of far) near.observe(section);
    if (far.length) setTimeout(() => far.forEach(fetchFar), 12_000);
  });
})();
