// Asks, shows the answer as it comes, and reads on after a reload or a lost connection.
//
// A turn is { question, fault, plain, id, parts, at, end }. `parts` are texts, sources and recoveries, in order;
// `at` is the id of the last event among them. Both are kept together, so that whatever was kept, what comes after `at`
// is the rest of it: every character once.

const find = (selector) => document.querySelector(selector);
const [log, welcome, form, question, fault, plain, send, stop, anew] =
  ["#log", "#welcome", "#form", "#question", "#fault", "#plain", "#send", "#stop", "#anew"].map(find);

const FAULTS = {
  "": "token limit", // the provider's own word that there is more: no fault
  transport: "connection broke", truncated: "cut off without a word", timeout: "fell silent", empty: "said nothing",
  server: "server error", overloaded: "overloaded", rate_limit: "rate limit", corrupt: "garbled",
};
const GIVEN_UP = { attempts: "the provider did not come back", error: "an error", server: "the server was stopped" };
const ENDS = { // by status; [how it looks, what it says]
  complete: ["ok", "Complete"],
  cancelled: ["", "Stopped"], unknown: ["", "Ended without an error. Is this all of it?"],
  length: ["cut", "Ends at the token limit"], filtered: ["cut", "Ended by the provider's content policy"],
  interrupted: ["bad", "Interrupted"],
  lost: ["bad", "Interrupted: the server has lost the rest of it"],
  expired: ["bad", "Interrupted: the server no longer has the rest of it"],
  "not asked": ["bad", "Not asked: the server could not be reached"],
};

// What is kept over a reload. The snapshot may be old, or copied into another tab: see above.
let { conversation, turns } = JSON.parse(sessionStorage.getItem("chat")) ?? { conversation: "", turns: [] };
const keep = () => sessionStorage.setItem("chat", JSON.stringify({ conversation, turns: turns.slice(-50) }));

class View {
  constructor(turn) {
    this.turn = turn;
    this.article = find("#turn").content.firstElementChild.cloneNode(true);
    const part = (name) => this.article.querySelector("." + name);
    for (const name of ["text", "sources", "bar", "state", "story", "retry"]) this[name] = part(name);
    part("question").textContent = turn.question;
    part("who").textContent = turn.plain ? "LlamaIndex" : "LlamaIndex with ResilientLLM";
    part("fault").textContent = fault.querySelector(`[value="${turn.fault}"]`)?.label;
    this.retry.onclick = () => current() || this.again();
    this.faults = [];
    this.unjoined = 0; // faults since the last text
    log.append(this.article);
    turn.parts.forEach((part) => this.add(part));
    this.showState();
    log.scrollTop = log.scrollHeight;
  }

  // A part of the answer: a text, what it is based on, or a recovery.
  add(part) {
    if (part.text) return this.write(part.text);
    if (part.sources) return this.sources.append(part.sources.map(({ text }) => text).join("\n\n"));
    this.faults.push(FAULTS[part.reason] ?? part.reason);
    this.unjoined += 1;
  }

  write(text) {
    if (this.unjoined && this.text.hasChildNodes()) {
      const seam = document.createElement("i");
      seam.className = "seam";
      seam.title = "Broke here: " + this.faults.slice(-this.unjoined).join(", ");
      this.text.append(seam);
      this.bar.append(document.createElement("i"));
    }
    this.unjoined = 0;
    const last = this.text.lastChild;
    if (last instanceof Text) last.appendData(text);
    else this.text.append(text);
    const { style } = this.bar.lastElementChild;
    style.flexGrow = Number(style.flexGrow) + text.length;
  }

  // The line under the answer: how it stands, and what happened on the way.
  showState(connected = true) {
    const { end, parts } = this.turn;
    let [kind, words] = ["", parts.some((part) => part.text) ? "Answering" : "Waiting for the first word"];
    if (end) {
      [kind, words] = ENDS[end.status] ?? ["bad", end.status];
      if (end.status === "interrupted") words += ": " + (GIVEN_UP[end.reason] ?? end.reason);
    } else if (!connected) [kind, words] = ["cut", "Connection lost. Reconnecting"];
    else if (this.unjoined) [kind, words] = ["cut", "Asking the model to go on"];
    this.state.textContent = words;
    this.state.className = "state " + kind;
    this.story.textContent = this.faults.length ? `${this.faults.length + 1} attempts: ${this.faults.join(", ")}` : "";
    this.article.dataset.status = end ? end.status : this.unjoined ? "broken" : "";
    this.article.setAttribute("aria-busy", !end); // read out when it is whole, not word by word
    this.retry.hidden = !end || kind !== "bad";
    controls();
  }

  finish(end) {
    this.turn.end = end;
    this.change(() => this.showState());
    keep();
  }

  // Keep the end in sight, unless the reader has scrolled up.
  change(what) {
    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
    what();
    if (follows) log.scrollTop = log.scrollHeight;
  }

  // In the place of this answer. Whatever broke is mended by now.
  again() {
    this.article.remove();
    turns.splice(turns.indexOf(this.turn), 1);
    ask({ ...this.turn, fault: "none" });
  }
}

async function ask({ question, fault, plain }) {
  const turn = { question, fault, plain, id: "", parts: [], at: "", end: null };
  turns.push(turn);
  const view = new View(turn);
  try {
    const response = await fetch("answers", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ question, fault, plain, conversation }),
    });
    if (!response.ok) throw new Error(response.statusText);
    ({ id: turn.id, conversation } = await response.json());
  } catch {
    return view.finish({ status: "not asked" });
  }
  keep();
  follow(view);
}

// Read what comes after `turn.at`.
function follow(view, pause = 500) {
  const { turn } = view;
  const source = new EventSource(`answers/${turn.id}?after=${turn.at}`);
  const take = (event) => {
    const [part, last] = [JSON.parse(event.data), turn.parts.at(-1)];
    turn.at = event.lastEventId;
    if (part.text && last?.text) last.text += part.text;
    else turn.parts.push({ ...part });
    view.change(() => { view.add(part); view.showState(); });
  };
  const end = ({ data }) => {
    source.close(); // or it would ask again
    view.finish(JSON.parse(data));
  };
  source.onopen = () => { pause = 500; view.showState(); };
  for (const kind of ["message", "sources", "recovery"]) source.addEventListener(kind, take);
  source.addEventListener("done", end);
  source.addEventListener("error", (event) => {
    if (event.data) return end(event); // ours: the answer is not whole
    view.showState(false); // the connection's: the browser comes back by itself, unless it was refused (a 503, say)
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, pause, view, Math.min(2 * pause, 10000));
  });
}

const current = () => turns.find((turn) => !turn.end);

function controls() {
  send.hidden = !(stop.hidden = !current());
  welcome.hidden = !(anew.hidden = !turns.length);
}

function halt() {
  if (current()?.id) fetch("answers/" + current().id, { method: "DELETE" }).catch(() => {}); // the stream reports it
  question.focus();
}

form.onsubmit = (event) => {
  event.preventDefault();
  if (current() || !question.value.trim()) return;
  ask({ question: question.value.trim(), fault: fault.value, plain: plain.checked });
  question.value = "";
  question.focus();
};

welcome.onclick = ({ target }) => {
  if (target.localName !== "button") return;
  question.value = target.textContent;
  form.requestSubmit();
};

anew.onclick = () => {
  halt();
  sessionStorage.clear();
  [conversation, turns] = ["", []];
  log.replaceChildren(welcome);
  controls();
};

stop.onclick = halt;
addEventListener("keydown", ({ key }) => key === "Escape" && halt());
addEventListener("pagehide", keep);
addEventListener("pageshow", ({ persisted }) => persisted && location.reload()); // its connections are gone

for (const turn of turns) {
  const view = new View(turn);
  if (turn.id && !turn.end) follow(view);
  else if (!turn.end) view.finish({ status: "not asked" });
}
controls();
