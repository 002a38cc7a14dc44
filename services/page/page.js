const $ = (selector, root = document) => root.querySelector(selector);
const BOUNDS = [-0.1, -0.5, -1.5, -4];
let stages = [];
const NAMES = ["above −0.1", "−0.1 to −0.5", "−0.5 to −1.5", "−1.5 to −4", "below −4"];
const figure = (number, digits = 3) => Number.isFinite(number) ? number.toFixed(digits).replace("-", "−") : "–";

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function headers() {
  const key = $("#key").value.trim();
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

async function refusal(response) {
  const body = await response.json().catch(() => null);
  const said = body?.error?.message ?? response.statusText;
  const wait = response.headers.get("Retry-After");
  const advice = {
    401: "Enter a valid API key above.", 413: "Shorten the text.",
    429: "Too many requests.", 503: "The server is not ready.",
  }[response.status] ?? "";
  return `${response.status}: ${said} ${advice}${wait ? ` Try again in ${wait} s.` : ""}`.trim();
}

class Refused extends Error {}

async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: headers() }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached. Check that it runs, then try again.");
  });
  if (!response.ok) throw new Refused(await refusal(response));
  return response;
}

/** Server-sent events of a POST as [name, data]; a stream that ends before [DONE] is an error. */
async function* events(path, body, signal) {
  const response = await ask(path, { method: "POST", body: JSON.stringify(body), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  while (true) {
    const { value, done } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      return { done: true };
    });
    if (done) throw new Refused("The stream was cut off before its end. Try again.");
    buffer = (buffer + value).replaceAll("\r\n", "\n");
    const parts = buffer.split("\n\n");
    buffer = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n");
      const name = lines.find((line) => line.startsWith("event:"))?.slice(6).trim() ?? "message";
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
      if (data === "[DONE]") return;
      if (!data) continue;
      const value = JSON.parse(data);
      if (value.error) throw new Refused(value.error.message);
      yield [name, value];
    }
  }
}

function fail(panel, text) {
  $(".error", panel).textContent = text;
  $(".error", panel).hidden = !text;
}

/** Runs a request of a panel with its buttons, status and error line; Stop aborts it. */
async function running(panel, work) {
  const control = new AbortController();
  const [go, stop] = [$(".go", panel), $(".stop", panel)];
  const status = $(".status", panel);
  fail(panel, "");
  go.disabled = true;
  stop.disabled = false;
  stop.onclick = () => control.abort();
  status.textContent = "Working …";
  try {
    await work(control.signal, status);
    status.textContent = "Done.";
  } catch (error) {
    status.textContent = error.name === "AbortError" ? "Stopped." : "";
    if (error.name !== "AbortError") fail(panel, error instanceof Refused ? error.message : `The answer could not be read: ${error.message}`);
  } finally {
    control.abort();
    go.disabled = false;
    stop.disabled = true;
  }
}

function level(logprob) {
  const found = BOUNDS.findIndex((bound) => logprob >= bound);
  return found < 0 ? BOUNDS.length : found;
}

function showTokens(place, tokens) {
  place.replaceChildren(...tokens.map(({ text, policy_logprob }) => {
    const token = make("span", `token n${level(policy_logprob)}`, text);
    token.title = `${figure(policy_logprob)} nats`;
    return token;
  }));
}

/** The palette's colour of a stage, by its position among those of the request. */
function color(stage) {
  if (stage === "expert" || stage === "unsolved") return stage;
  const position = stages.filter((name) => name !== "expert").indexOf(stage);
  return position < 0 ? "" : `stage-${position % 6 + 1}`;
}

function showResult(result) {
  const { gap, usage, timing } = result;
  const source = $("#result .source");
  source.textContent = result.source;
  source.className = `badge source ${color(result.source)}`;
  const figures = [["kept, mean log-prob (nats a token)", gap.kept_mean_logprob], ["expert, mean log-prob (nats a token)", gap.expert_mean_logprob], ["gap closed (nats a token)", gap.closed]];
  $("#result .tiles").replaceChildren(...figures.map(([name, value]) => {
    const tile = make("div", "tile");
    tile.append(make("dt", "", name), make("dd", "", figure(value)));
    return tile;
  }));
  showTokens($("#response"), result.tokens);
  showTokens($("#expert"), result.expert_tokens);
  $("#result .usage").textContent = `${usage.prompt_tokens} prompt + ${usage.completion_tokens} completion tokens · ${figure(timing.seconds, 2)} s, of which ${figure(timing.queued_seconds, 2)} s queued · ${result.model}, revision ${result.revision}`;
  $("#result").hidden = false;
}

function showStage({ stage, n }) {
  const place = make("li", "stage");
  place.append(make("span", `badge ${color(stage)}`, stage), make("span", "aside", n ? `${n} asked for` : ""), make("ol", "attempts"));
  $(".stages").append(place);
  return place;
}

function showAttempt(place, { outcome, tokens, text }) {
  const attempt = make("li", "attempt");
  attempt.append(make("span", `badge ${outcome === "correct" ? "correct" : ""}`, outcome), make("span", "aside", `${tokens} tokens`), make("div", "text", text ?? ""));
  $(".attempts", place).append(attempt);
}

async function rewrite(signal, status) {
  $(".stages").replaceChildren();
  $("#result").hidden = true;
  let place;
  let finished = false;
  const body = { problem: $("#problem").value, solution: $("#solution").value, answer: $("#answer").value || null, keep_attempts: true, stream: true };
  for await (const [name, data] of events("/v1/rewrite", body, signal)) {
    if (name === "start") {
      stages = data.stages;
    } else if (name === "stage") {
      place = showStage(data);
      status.textContent = `Stage ${data.stage}: ${data.n} samples asked for …`;
    } else if (name === "attempt") {
      place ??= showStage(data);
      showAttempt(place, data);
      status.textContent = `Stage ${data.stage}: an attempt is ${data.outcome}.`;
    } else if (name === "result") {
      showResult(data);
      finished = true;
    }
  }
  if (!finished) throw new Refused("The stream ended without a result. Try again.");
}

const talks = [[], []];

async function reply(index, signal) {
  const talk = document.querySelectorAll(".talk")[index];
  const turn = talk.appendChild(make("p", "turn"));
  const body = { model: document.querySelectorAll(".model")[index].value, messages: talks[index], stream: true };
  let text = "";
  for await (const [, data] of events("/v1/chat/completions", body, signal)) {
    text += data.choices?.[0]?.delta?.content ?? "";
    turn.textContent = text;
  }
  talks[index].push({ role: "assistant", content: text });
}

async function chat(signal) {
  const content = $("#message").value;
  document.querySelectorAll(".talk").forEach((talk, index) => {
    if (talks[index].at(-1)?.role === "user") talks[index].pop();
    talks[index].push({ role: "user", content });
    talk.append(make("p", "turn user", content));
  });
  const ended = await Promise.allSettled([reply(0, signal), reply(1, signal)]);
  const broken = ended.find((one) => one.status === "rejected");
  if (broken) throw broken.reason;
  $("#message").value = "";
}

let examples = [];

async function load() {
  try {
    const [shown, models] = await Promise.all(["/v1/examples", "/v1/models"].map(async (path) => (await ask(path)).json()));
    examples = shown.examples;
    $("#example").replaceChildren(new Option("Your own", ""), ...examples.map(({ name }, index) => new Option(name, index)));
    document.querySelectorAll(".model").forEach((picker, index) => {
      picker.replaceChildren(...models.data.map(({ id, revision }) => new Option(revision ? `${id} (${revision})` : id, id)));
      const other = models.data.findIndex((model) => Boolean(model.default) === (index === 0));
      picker.selectedIndex = Math.max(other, 0);
    });
    fail($("#rewrite"), "");
  } catch (error) {
    fail($("#rewrite"), error.message);
  }
}

function choose(tab) {
  for (const other of document.querySelectorAll("[role=tab]")) {
    other.setAttribute("aria-selected", String(other === tab));
    other.tabIndex = other === tab ? 0 : -1;
    $(`#${other.getAttribute("aria-controls")}`).hidden = other !== tab;
  }
}

for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.onclick = () => choose(tab);
  tab.onkeydown = ({ key }) => {
    if (key !== "ArrowLeft" && key !== "ArrowRight") return;
    const other = $("[role=tab][aria-selected=false]");
    choose(other);
    other.focus();
  };
}
$("#legend").append(...NAMES.map((name, index) => make("span", `token n${index}`, name)));
$("#example").onchange = ({ target }) => {
  const { problem = "", solution = "", answer = "" } = examples[target.value] ?? {};
  Object.assign($("#problem"), { value: problem });
  Object.assign($("#solution"), { value: solution });
  Object.assign($("#answer"), { value: answer ?? "" });
};
$("#key").value = sessionStorage.getItem("key") ?? "";
$("#key").onchange = () => { sessionStorage.setItem("key", $("#key").value); load(); };
$("#ask").onsubmit = (event) => { event.preventDefault(); running($("#rewrite"), rewrite); };
$("#say").onsubmit = (event) => { event.preventDefault(); running($("#chat"), chat); };
load();
