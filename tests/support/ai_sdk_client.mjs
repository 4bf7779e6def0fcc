// A chat of the npm package `ai`, which asks through a proxy that cuts, and comes back. Prints its messages as JSON.
//
//   node ai_sdk_client.mjs URL KIND CUT...     each CUT is after how many events; 0: never
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
const { AbstractChat, DefaultChatTransport } = await import(
  pathToFileURL(createRequire(process.env.NODE_HOME + "/").resolve("ai")).href
);

class State {
  status = "ready";
  error = undefined;
  messages = [];
  pushMessage = (message) => { this.messages = [...this.messages, message]; };
  popMessage = () => { this.messages = this.messages.slice(0, -1); };
  replaceMessage = (at, message) => { this.messages = this.messages.with?.(at, message) ?? this.messages.map((m, i) => (i === at ? message : m)); };
  snapshot = (thing) => structuredClone(thing);
}
class Chat extends AbstractChat {
  constructor(init) { super({ ...init, state: new State() }); }
}

const [url, kind, ...cuts] = process.argv.slice(2);
const results = [];
for (const cut of cuts) {
  const seen = { transient: [], finish: null, resumed: 0, stopped: null };
  const chat = new Chat({
    id: `${kind}-${cut}-${Math.random().toString(36).slice(2)}`,
    transport: new DefaultChatTransport({ api: `${url}/api/chat`, body: { kind }, headers: { "x-cut": cut } }),
    onData: ({ type }) => seen.transient.push(type),
    onError: (error) => { seen.error = error.message; },
    onFinish: ({ finishReason, isAbort }) => { seen.finish = finishReason ?? (isAbort ? "abort" : null); },
  });
  const asked = chat.sendMessage({ text: "How is the weather?" });
  if (kind.startsWith("slow")) {
    while (!chat.messages[1]?.parts.some((part) => part.type === "text" && part.text.length > 20)) await new Promise((ok) => setTimeout(ok, 20));
    seen.stopped = await (await fetch(`${url}/api/chat/${chat.id}`, { method: "DELETE" })).json();
  }
  await asked;
  if (cut !== "0") {
    seen.error = undefined;
    seen.resumed += 1;
    await chat.resumeStream();
  }
  results.push({ cut, status: chat.status, ...seen, parts: chat.messages.at(-1).parts, role: chat.messages.at(-1).role, count: chat.messages.length, metadata: chat.messages.at(-1).metadata });
}
const nothing = new Chat({ id: "never-asked", transport: new DefaultChatTransport({ api: `${url}/api/chat` }) });
await nothing.resumeStream();
const all = { results, nothing: { status: nothing.status, count: nothing.messages.length } };
process.stdout.write(JSON.stringify(all), () => process.exit(0));
