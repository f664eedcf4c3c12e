/* Kampania's page script: no cookie and nothing stored unless the page calls kampania("consent", true).
   Reports go to /e of the host that serves this file. Errors in it must never break the page. */
(function (w, d, n) {
  try {
    var me = d.currentScript, store = "kampania-id", l = location, queue = w.kampania && w.kampania.q || []
    var to = new URL("e", me.src).href, off = n.doNotTrack == 1 || w.doNotTrack == 1 || n.globalPrivacyControl
    var changed, page, address, from, active, deepest, seen, sent, token, idle

    function id() { try { return off ? 0 : w.localStorage.getItem(store) } catch (e) {} }
    function draw() { return Math.random() * 2147483647 + 1 | 0 }

    // Each report has cumulative values, so a lost or repeated report does no harm.
    function report(kind, more) {
      if (kind != "v" && me.dataset.form || kind == "h" && off) return
      var form = d.querySelector("form input[name=external_id]")
      var body = { t: kind, u: address, r: from, p: page, a: Math.round(active), s: deepest, k: off ? undefined : token, i: id() || undefined,
        f: form && form.value || undefined, l: n.language, d: off ? 1 : undefined, b: me.dataset.form ? 1 : undefined }
      try { body.z = Intl.DateTimeFormat().resolvedOptions().timeZone } catch (e) {}
      for (var name in more) body[name] = more[name]
      body = JSON.stringify(body)
      seen = Date.now(), changed = 0
      try { if (n.sendBeacon(to, body)) return } catch (e) {}
      try { fetch(to, { method: "POST", body: body, keepalive: true, mode: "no-cors", credentials: "omit" }).catch(function () {}) } catch (e) {}
    }

    function begin() {
      var url = new URL(l.href), k = url.searchParams.get("k")
      if (k) {
        token = k, url.searchParams.delete("k")
        history.replaceState(history.state, "", url)
      }
      url.hash = "", page = draw(), active = deepest = sent = 0, address = url.href.slice(0, 2000)
      measure(), report("v")
    }

    function onUrlChange() {
      var was = address
      if (was.split("#")[0] != l.href.split("#")[0]) { finish(), from = was, begin() }
    }

    function measure() {
      var root = d.documentElement, part = 100 * (w.scrollY + w.innerHeight) / root.scrollHeight
      part = Math.min(100, Math.round(part))
      if (part > deepest) deepest = part, changed = 1
    }

    function finish() { if (changed && !off) sent = active, report("h") }

    // Active: visible, focused, and used within the last 30 s. Reported at 10 s, 25 s, then at growing intervals.
    setInterval(function () {
      if (d.visibilityState != "visible" || !d.hasFocus() || Date.now() - idle > 3e4) return
      if (Date.now() - seen > 18e5) from = address, begin()
      active++, changed = 1
      if (active == 11 || active - sent > 14 + active / 10) finish()
    }, 1000)

    idle = Date.now(), from = d.referrer.slice(0, 2000)
    "scroll keydown pointermove pointerdown touchstart".split(" ").forEach(function (name) {
      w.addEventListener(name, function () { idle = Date.now(), name == "scroll" && measure() }, { passive: true, capture: true })
    })
    d.addEventListener("visibilitychange", function () { d.visibilityState == "hidden" && finish() })
    w.addEventListener("pagehide", finish)
    d.addEventListener("click", function (event) {
      var a = event.target.closest && event.target.closest("a[href]")
      if (a && /^http/.test(a.protocol) && a.host != l.host) report("o", { h: a.href.slice(0, 2000), x: draw() })
    }, true)
    ;["pushState", "replaceState"].forEach(function (name) {
      var before = history[name]
      history[name] = function () { var result = before.apply(this, arguments); setTimeout(onUrlChange); return result }
    })
    w.addEventListener("popstate", function () { setTimeout(onUrlChange) })

    w.kampania = function (what, name, more) {
      try {
        if (what == "event") more = more || {}, report("e", { n: name, v: more.value, c: more.currency, e: more.id, x: draw() })
        if (what == "consent" && !off) {
          if (name) id() || w.localStorage.setItem(store, (w.crypto.randomUUID ? crypto.randomUUID() : "" + draw() + draw())), report("h")
          else w.localStorage.removeItem(store)
        }
      } catch (e) {}
    }
    begin()
    queue.forEach(function (call) { w.kampania.apply(w, call) })
  } catch (e) {}
})(window, document, navigator)
