/* Keeps a page true while it is open: live areas, clocks, log tails, refusals. No dependencies but htmx; no HTML is
   ever made from text here (the policy allows that to htmx alone).

   A live area is an element with an id and
     data-live-url     the fragment: an answer with this same element, its new data-version and an ETag
     data-stream-url   the stream with its ticket (upgrades/web/stream.py); without it the page only asks
     data-version      the version that is shown
     data-etag         the ETag of what is shown (optional)
     data-ask-every    milliseconds: ask as often beside the stream, for what grows old without a new version (optional)
   Inside it: [data-needs-fresh] buttons are locked while the page may be stale.

   Elsewhere: [data-since], [data-until] clocks, <time datetime>, progress[data-from][data-until], [data-fill] bars,
   [data-tail] lists that follow their end. See docs/adr/0002-live-pages.md. */

const ASK_EVERY = 3000        // without a stream
const SILENCE = 2900          // the stream beats every 2 s
const ANSWER_WITHIN = 1500    // SILENCE + ANSWER_WITHIN stays under the 5 s that a stale page may look fresh
const GIVE_UP_AFTER = 10000
const TICKET_LIFE = 90000     // a ticket opens a stream for 120 s
const REOPEN_AFTER = [0, 3000, 6000, 12000, 30000]

const { htmx } = window

/* ---- the server's time ---- */

let serverAt = Date.parse(document.documentElement.dataset.now) || Date.now()
let heardAt = performance.now()

const serverNow = () => serverAt + performance.now() - heardAt

function setServerTime(milliseconds) {
  serverAt = milliseconds
  heardAt = performance.now()
}

/* ---- what was typed ---- */

const CONTROLS = "input, textarea, select"
const TEXT = /^(text|search|url|email|tel|number|textarea)$/

function isTouched(control) {
  if (control.type === "hidden") return false
  if (control.type === "checkbox" || control.type === "radio") return control.checked !== control.defaultChecked
  if (control.type === "file") return control.files.length > 0
  if (control.options) {
    const chosen = [...control.options].findIndex(option => option.defaultSelected)
    return control.multiple
      ? [...control.options].some(option => option.selected !== option.defaultSelected)
      : control.selectedIndex !== Math.max(chosen, 0)
  }
  return control.value !== control.defaultValue
}

const nameOf = control => `${control.form?.id ?? ""}/${control.name || control.id}`

const labelOf = control => control.labels?.[0]?.textContent.trim() || control.getAttribute("aria-label") || control.name

function typedTexts() {
  return [...document.querySelectorAll("main input, main textarea")]
    .filter(control => TEXT.test(control.type) && !control.readOnly && isTouched(control) && control.value.trim())
    .map(control => ({ name: nameOf(control), label: labelOf(control), value: control.value }))
}

/* A swap that takes a form away leaves what was typed in it at the head of the page. */
function keepText({ label, value }) {
  const banner = element("div", { className: "banner warn" })
  const body = element("div")
  const id = `kept-${crypto.randomUUID()}`
  const copy = element("textarea", { id, readOnly: true, value })
  const discard = element("button", { type: "button", className: "small", textContent: "Discard" })
  const title = element("label", { htmlFor: id, textContent: `Not sent: “${label}”. Its form is gone; copy what you still need.` })
  discard.addEventListener("click", () => banner.remove())
  body.append(title, copy)
  banner.append(body, discard)
  document.getElementById("kept-text")?.append(banner)
}

function element(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties)
}

/* ---- live areas ---- */

const areas = new Map()

class Area {
  constructor(root) {
    this.id = root.id
    this.url = root.dataset.liveUrl
    this.etag = root.dataset.etag || ""
    this.failures = 0
    this.reopenAt = 0
    this.stale = false
    this.seeTicket()
    if (this.streamUrl) this.open()
    else this.askLater()
  }

  get root() {
    return document.getElementById(this.id)
  }

  /* False when the element is gone, belongs to another page now, or has ended: its last answer asks for no more. */
  get isHere() {
    return this.root?.dataset.liveUrl === this.url
  }

  get version() {
    return Number(this.root?.dataset.version ?? 0)
  }

  seeTicket() {
    const url = this.root?.dataset.streamUrl
    if (url === this.streamUrl) return
    this.streamUrl = url
    this.ticketAt = performance.now()
  }

  open() {
    this.stream?.close()
    const stream = this.stream = new EventSource(this.streamUrl)
    stream.addEventListener("beat", event => {
      this.heard()
      setServerTime(Number(event.data))
      if (this.following) return
      this.following = true
      this.failures = 0
      clearTimeout(this.asking)
      this.ask()                             // what happened between the page's rendering and now
    })
    stream.addEventListener("version", event => {
      this.heard()
      if (Number(event.data) > this.version) this.ask()
    })
    stream.addEventListener("renew", () => {
      this.closeStream()
      this.ask({ whole: true })
    })
    stream.addEventListener("error", () => this.lost())
    this.heard()
  }

  heard() {
    clearTimeout(this.silence)
    this.silence = setTimeout(() => this.lost(), SILENCE)
  }

  closeStream() {
    clearTimeout(this.silence)
    this.stream?.close()
    this.stream = null
    this.following = false
  }

  lost() {
    if (!this.stream) return
    this.closeStream()
    this.reopenAt = performance.now() + REOPEN_AFTER[Math.min(this.failures, REOPEN_AFTER.length - 1)] + Math.random() * 500
    this.failures += 1
    this.ask()
  }

  /* Nothing tells that nothing comes any more: what grows old has to be asked for. */
  askAgain() {
    const every = Number(this.root?.dataset.askEvery)
    if (!every) return
    clearTimeout(this.asking)
    this.asking = setTimeout(() => this.ask(), every)
  }

  askLater() {
    clearTimeout(this.asking)
    this.asking = setTimeout(() => this.ask(), ASK_EVERY)
  }

  /* Asks for the fragment. One question at a time: another wish meanwhile leads to one more afterwards. */
  async ask({ whole = false } = {}) {
    if (!this.isHere) return this.end()
    const root = this.root
    if (this.busy) {
      this.again = true
      return
    }
    this.busy = true
    clearTimeout(this.asking)
    const ticketIsOld = this.streamUrl && !this.stream && performance.now() - this.ticketAt > TICKET_LIFE
    const headers = this.etag && !whole && !ticketIsOld ? { "If-None-Match": this.etag } : {}
    const overdue = setTimeout(() => this.setStale(true), ANSWER_WITHIN)
    let answer = null
    const fetchOnce = async (url, request) => {
      const signal = AbortSignal.any([request.signal, AbortSignal.timeout(GIVE_UP_AFTER)])
      answer = await window.fetch(url, { ...request, signal, cache: "no-store" })
      return answer
    }
    try {
      await htmx.ajax("GET", this.url, { source: root, target: root, swap: "outerMorph", headers, fetch: fetchOnce, live: true })
    } finally {
      clearTimeout(overdue)
      this.busy = false
    }
    this.answered(answer)
  }

  answered(answer) {
    if (!areas.has(this.id)) return
    const good = answer !== null && (answer.ok || answer.status === 304)
    if (good && answer.status !== 304) this.etag = answer.headers.get("ETag") ?? ""
    if (answer && [401, 403, 404, 410].includes(answer.status)) return this.refused()
    this.setStale(!good)
    if (!this.isHere) return this.end()
    this.seeTicket()
    if (this.again) {
      this.again = false
      return this.ask()
    }
    if (this.stream && good) return this.askAgain()
    if (!this.stream && good && this.streamUrl && performance.now() >= this.reopenAt) this.open()
    this.askLater()
  }

  refused() {
    this.setStale(true, "You can no longer see this here: you were signed out, or a right was taken away. Load the page again.")
    this.end()
  }

  setStale(stale, text) {
    this.stale = stale
    this.text = text
    showLink()
  }

  end() {
    clearTimeout(this.asking)
    this.closeStream()
    areas.delete(this.id)
  }
}

const STALE = "No connection to the server. What you see may be out of date; buttons that need the present state are locked until it answers."

function showLink() {
  const all = [...areas.values()]
  const stale = all.find(area => area.stale)
  const state = !all.length ? "none" : stale ? "stale" : all.some(area => !area.following) ? "asking" : "live"
  document.documentElement.dataset.link = state
  const banner = document.getElementById("link-state")
  if (banner) {
    const text = stale ? stale.text ?? STALE : ""
    if (banner.textContent !== text) banner.textContent = text
    banner.hidden = !stale
  }
  for (const area of all) {
    for (const button of area.root?.querySelectorAll("[data-needs-fresh]") ?? []) {
      if (area.stale && !button.disabled) {
        button.disabled = true
        button.dataset.locked = ""
      } else if (!area.stale && "locked" in button.dataset) {
        button.disabled = false
        delete button.dataset.locked
      }
    }
  }
}

function findAreas() {
  for (const area of [...areas.values()]) if (!area.isHere) area.end()
  for (const root of document.querySelectorAll("[data-live-url][id]")) {
    if (!areas.has(root.id)) areas.set(root.id, new Area(root))
  }
  showLink()
}

/* ---- around each swap ---- */

/* Morphing keeps what the reader did: touched controls, opened details, widths that a script has set. */
htmx.registerExtension("runbook-live", {
  htmx_before_morph_node: node => !(node.matches?.(CONTROLS) && isTouched(node)),
  htmx_before_morph_attr: (node, { attrName }) =>
    !((attrName === "open" && node.tagName === "DETAILS") || (attrName === "style" && "fill" in node.dataset)),
})

let typedBefore = []

/* The form that somebody sent; null for what the page asks for by itself. */
const sentForm = ctx => (ctx.live ? null : ctx.sourceElement?.closest?.("form"))

document.addEventListener("htmx:before:swap", event => {
  const { ctx, tasks } = event.detail
  for (const task of tasks) {
    const fresh = task.fragment?.querySelector?.("[data-live-url][data-version]")
    const shown = fresh?.id && document.getElementById(fresh.id)
    // An answer that was under way while a newer one came: showing it would go back in time.
    if (shown && Number(fresh.dataset.version) < Number(shown.dataset.version)) return event.preventDefault()
  }
  const sent = ctx.response?.raw?.ok ? sentForm(ctx) : null
  sent?.reset()     // what was accepted is not "typed and unsent" any more: it may be replaced
  // What was said of the act before would be read as said of this one.
  if (sent) document.getElementById("messages")?.replaceChildren()
  const question = sent?.closest("details.ask")
  if (question) question.open = false
  typedBefore = typedTexts()
})

document.addEventListener("htmx:after:swap", () => {
  const here = new Set(typedTexts().map(text => `${text.name}\n${text.value}`))
  typedBefore.filter(text => !here.has(`${text.name}\n${text.value}`)).forEach(keepText)
  typedBefore = []
  findAreas()
  tick()
  showTimes()
  setFills()
  followTails()
})

const REFUSALS = {
  401: "You are signed out. Sign in and send it again.",
  403: "This is not allowed for you here. Nothing was changed. Ask an administrator of this environment for the role, or load the page again if you were signed in meanwhile.",
  404: "This is no longer there, or not for you to see. Load the page again.",
  413: "What you sent is too large. Nothing was changed.",
  429: "Too many requests in a short time. Nothing was changed. Wait a moment and send it again.",
}
const UNKNOWN = "The server could not answer, and it is not known whether it acted. Look at what the page shows now; if it did not act, send it again: the same click never acts twice."

function say(text) {
  const place = document.getElementById("messages")
  if (!place) return
  place.querySelector("[data-refusal]")?.remove()
  const banner = element("div", { className: "banner stop" })
  banner.dataset.refusal = ""
  banner.append(element("div", { textContent: text }))
  place.prepend(banner)
  banner.scrollIntoView({ block: "nearest" })
}

document.addEventListener("htmx:response:error", ({ detail: { ctx } }) => {
  const { status } = ctx.response
  if (ctx.live || ctx.hx?.redirect) return
  const told = ctx.response.headers.get("X-Refusal")     // the server's own words (upgrades/web/answers.py)
  if (told) return say(decodeURIComponent(told))
  if (status === 409 || status === 422) return
  say(REFUSALS[status] ?? (status >= 500 ? UNKNOWN : "The server did not accept this. Nothing was changed. Load the page again."))
})

document.addEventListener("htmx:error", ({ detail: { ctx } }) => {
  if (ctx && !ctx.live) say(UNKNOWN)
})

/* The next try clears the refusal of the one before. */
document.addEventListener("htmx:before:request", ({ detail: { ctx } }) => {
  if (sentForm(ctx)) document.querySelector("#messages [data-refusal]")?.remove()
})

/* ---- clocks ---- */

const two = number => String(number).padStart(2, "0")

function duration(milliseconds) {
  const seconds = Math.floor(Math.abs(milliseconds) / 1000)
  const days = Math.floor(seconds / 86400), hours = Math.floor(seconds / 3600) % 24, minutes = Math.floor(seconds / 60) % 60
  if (days) return `${days} d ${two(hours)}:${two(minutes)}`
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text
}

function tick() {
  const now = serverNow()
  for (const clock of document.querySelectorAll("[data-since]")) {
    const passed = Math.max(0, now - Date.parse(clock.dataset.since))
    setText(clock, duration(passed))
    clock.classList.toggle("over", passed > Number(clock.dataset.limit ?? Infinity) * 1000)
  }
  for (const clock of document.querySelectorAll("[data-until]:not(progress)")) {
    const left = Date.parse(clock.dataset.until) - now
    setText(clock, left < 0 ? `−${duration(left)}` : duration(left + 999))
    clock.classList.toggle("over", left < 0)
  }
  for (const bar of document.querySelectorAll("progress[data-from][data-until]")) {
    const from = Date.parse(bar.dataset.from), until = Date.parse(bar.dataset.until)
    bar.max = 1
    bar.value = until > from ? Math.min(1, Math.max(0, (now - from) / (until - from))) : 1
  }
}

const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }
const DAY = { day: "numeric", month: "short", year: "numeric" }
const SHAPES = {
  time: CLOCK,
  ms: { ...CLOCK, fractionalSecondDigits: 3 },
  minute: { hour: "2-digit", minute: "2-digit", hourCycle: "h23" },
  date: DAY,
  full: { ...DAY, hour: "2-digit", minute: "2-digit", hourCycle: "h23" },
}
const formats = Object.fromEntries(Object.entries(SHAPES).map(([name, shape]) => [name, new Intl.DateTimeFormat("en-GB", shape)]))

function showTimes() {
  for (const node of document.querySelectorAll("time[datetime]")) {
    const at = new Date(node.dateTime)
    if (Number.isNaN(at.getTime())) continue
    setText(node, (formats[node.dataset.show] ?? formats.full).format(at))
    node.title = `${at.toISOString().replace("T", " ").replace("Z", "")} UTC`
  }
}

/* ---- bars and tails ---- */

function setFills() {
  for (const bar of document.querySelectorAll("[data-fill]")) {
    bar.style.setProperty("--fill", `${Math.min(100, Math.max(0, Number(bar.dataset.fill) || 0))}%`)
  }
}

/* A tail follows its end until the reader scrolls up, and again from when he is back at the end. */
const leftTheEnd = new Set()

document.addEventListener("scroll", ({ target }) => {
  if (!target.matches?.("[data-tail]")) return
  if (target.scrollHeight - target.scrollTop - target.clientHeight > 24) leftTheEnd.add(target.id)
  else leftTheEnd.delete(target.id)
}, { capture: true, passive: true })

function followTails() {
  for (const tail of document.querySelectorAll("[data-tail]")) {
    if (!leftTheEnd.has(tail.id)) tail.scrollTop = tail.scrollHeight
  }
}

/* ---- menus and questions: one at a time, Escape closes ---- */

document.addEventListener("click", ({ target }) => {
  for (const open of document.querySelectorAll("details.user[open], details.ask[open]")) {
    if (!open.contains(target)) open.open = false
  }
})

document.addEventListener("keydown", ({ key }) => {
  if (key !== "Escape") return
  for (const open of document.querySelectorAll("details.user[open], details.ask[open]")) {
    open.open = false
    open.querySelector("summary").focus()
  }
})

/* ---- begin ---- */

addEventListener("offline", () => areas.forEach(area => (area.stream ? area.lost() : area.ask())))
addEventListener("online", () => areas.forEach(area => area.ask()))
addEventListener("pageshow", event => event.persisted && areas.forEach(area => area.ask()))
addEventListener("pagehide", () => areas.forEach(area => area.closeStream()))
// Timers of a hidden page are slow: whoever looks again must see the present, not what the timer will find.
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") areas.forEach(area => area.ask())
})

tick()
showTimes()
setFills()
followTails()
findAreas()
setInterval(tick, 500)
