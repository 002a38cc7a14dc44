"use strict";
// The tables to browse. Rows come as data and reach the page as text nodes only: nothing in them is read as markup.
(() => {
  const PAGE_ROWS = 20;
  const SEARCH_DELAY_MS = 120;

  const el = (tag, className, ...children) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children);
    return node;
  };
  const number = (value) => value.toLocaleString("en-US");
  const nats = (value) => (value === null ? "?" : value.toFixed(2).replace("-", "\u2212"));
  const words = (name) => name.replaceAll("_", " ");
  const cssName = (name) => name.replaceAll("_", "-");

  const dot = (color) => {
    const node = el("span", "dot");
    node.style.background = `var(--${cssName(color)})`;
    return node;
  };

  // Text with every occurrence of the query marked; the query is in lower case.
  const marked = (text, query) => {
    const fragment = document.createDocumentFragment();
    const lower = text.toLowerCase();
    // A few letters change their length in lower case; then positions would not fit, so nothing is marked.
    if (!query || lower.length !== text.length) {
      fragment.append(text);
      return fragment;
    }
    let end = 0;
    for (let at = lower.indexOf(query); at >= 0; at = lower.indexOf(query, end)) {
      fragment.append(text.slice(end, at), el("mark", "", text.slice(at, at + query.length)));
      end = at + query.length;
    }
    fragment.append(text.slice(end));
    return fragment;
  };

  const texts = (value) => {
    if (typeof value === "string") return [value];
    if (value === null || typeof value !== "object") return [];
    return Object.values(value).flatMap(texts);
  };

  const tally = (items, key) => {
    const counts = new Map();
    for (const item of items) counts.set(item[key], (counts.get(item[key]) ?? 0) + 1);
    return counts;
  };

  const outcomes = (samples) => [...tally(samples, "outcome")].map(([outcome, n]) =>
    el("span", "kind", dot(outcome), n > 1 ? `${n} ${words(outcome)}` : words(outcome)));

  const sampleCard = (sample, title, query) => {
    const about = [title, el("span", "kind", dot(sample.outcome), words(sample.outcome)), `${number(sample.tokens)} tokens`];
    if (sample.extracted != null) about.push(`answer ${sample.extracted}`);
    const text = sample.text ?? sample.response;
    const body = text == null ? el("span", "aside", "Its text was not kept.") : marked(text, query);
    return el("li", "attempt", el("header", "", ...about.map((part) => el("span", "", part))), el("div", "text", body));
  };

  const cell = (text, query) => el("div", "cell", marked(text, query));
  // A problem that a program answers has tests, and no answer to show.
  const problem = (row, query) =>
    row.answer ? [cell(row.problem, query), el("span", "aside", `answer ${row.answer}`)] : [cell(row.problem, query)];

  const answers = (samples, query) => {
    if (!samples || samples.length === 0) return [el("span", "aside", "not answered")];
    const judged = el("div", "stage", ...outcomes(samples));
    return [judged, cell(samples[0].response, query)];
  };

  const kept = (row, query) => {
    if (row.source === "unsolved") return [el("span", "aside", "none: no stage solved it")];
    return row.source === "expert" && row.response === row.solution
      ? [el("span", "aside", "the expert solution, as it stands")] : [cell(row.response, query)];
  };

  const rewrites = {
    inGroup: (row, group) => row.source === group,
    columns: [
      ["Source", (row, query, colors) => [
        el("span", `badge ${colors.get(row.source) ?? ""}`, row.source),
        el("span", "aside", `${nats(row.expert)} \u2192 ${nats(row.kept)} nats`),
      ]],
      ["Problem", problem],
      ["Expert solution", (row, query) => [cell(row.solution, query)]],
      ["Kept response", kept],
      ["Attempts", (row) => [...new Set(row.attempts.map((attempt) => attempt.stage))].map((stage) =>
        el("div", "stage", `${stage}:`, ...outcomes(row.attempts.filter((attempt) => attempt.stage === stage))))],
    ],
    details: (row, query) => row.attempts.map((attempt, index) =>
      sampleCard(attempt, `${index + 1}. ${attempt.stage}`, query)),
  };

  const evaluation = {
    inGroup: (row, group) => row.group === group,
    groups: [["improved", "improved", "trained"], ["worsened", "worsened", "expert"],
      ["solved", "same, solved", "base"], ["unsolved", "same, unsolved", "grid"]],
    columns: [
      ["Change", (row) => [el("span", `badge ${row.group}`, row.group)]],
      ["Problem", problem],
      ["Base model", (row, query) => answers(row.base, query)],
      ["Trained model", (row, query) => answers(row.trained, query)],
      ["Samples", (row) => [el("span", "aside", `${row.base.length + (row.trained ?? []).length} in all`)]],
    ],
    details: (row, query) => ["base", "trained"].flatMap((model) =>
      (row[model] ?? []).map((sample, index) => sampleCard(sample, `${model}, sample ${index + 1}`, query))),
  };

  // A problem is in the group of every outcome that one of its samples has.
  const samples = {
    inGroup: (row, outcome) => [...row.samples, ...row.greedy].some((sample) => sample.outcome === outcome),
    groups: ["correct", "wrong", "no_answer", "truncated", "timeout", "error"].map((outcome) => [outcome, words(outcome)]),
    columns: [
      ["Suite", (row) => [row.suite, el("span", "aside", row.id)]],
      ["Problem", problem],
      ["First answer", (row, query) => answers(row.samples.slice(0, 1), query)],
      ["Samples", (row) => [
        el("div", "stage", ...outcomes(row.samples)),
        ...(row.greedy.length ? [el("div", "stage", "greedy:", ...outcomes(row.greedy))] : []),
        el("span", "aside", row.model),
      ]],
    ],
    details: (row, query) => [
      ...row.samples.map((sample, index) => sampleCard(sample, `sample ${index + 1}`, query)),
      ...row.greedy.map((sample) => sampleCard(sample, "greedy", query)),
    ],
  };

  const browse = (root, view) => {
    const rows = JSON.parse(root.querySelector("script").textContent);
    const haystacks = rows.map((row) => texts(row).join("\n").toLowerCase());
    const given = JSON.parse(root.dataset.groups);
    const groups = view.groups ?? given.map(([name, color]) => [name, name, color]);
    const colors = new Map(given);
    const state = { group: null, query: "", page: 0, found: [] };
    const [body, shown, pages] = ["tbody", ".shown", ".pages"].map((selector) => root.querySelector(selector));

    const detailsRow = (row) => {
      const content = el("td", "", el("ul", "attempts", ...view.details(row, state.query)));
      content.colSpan = view.columns.length;
      return el("tr", "details", content);
    };

    const tableRow = (row) => {
      const line = el("tr", "");
      for (const [label, content] of view.columns) {
        const column = el("td", "", ...content(row, state.query, colors));
        column.dataset.label = label;
        line.append(column);
      }
      const button = el("button", "more", "Show all");
      button.type = "button";
      button.setAttribute("aria-expanded", "false");
      button.addEventListener("click", () => {
        const open = line.classList.toggle("open");
        button.setAttribute("aria-expanded", String(open));
        button.textContent = open ? "Show less" : "Show all";
        if (open) line.after(detailsRow(row));
        else line.nextSibling.remove();
      });
      line.lastChild.append(button);
      return line;
    };

    const render = () => {
      const first = state.page * PAGE_ROWS;
      const last = Math.min(first + PAGE_ROWS, state.found.length);
      body.replaceChildren(...state.found.slice(first, last).map((index) => tableRow(rows[index])));
      shown.textContent = `${number(state.found.length)} of ${number(rows.length)} shown`;
      pages.hidden = state.found.length <= PAGE_ROWS;
      pages.querySelector(".page").textContent = `${number(first + 1)}\u2013${number(last)} of ${number(state.found.length)}`;
      pages.querySelector(".previous").disabled = state.page === 0;
      pages.querySelector(".next").disabled = last >= state.found.length;
    };

    const search = () => {
      state.page = 0;
      state.found = [...rows.keys()].filter((index) =>
        (state.group === null || view.inGroup(rows[index], state.group)) && haystacks[index].includes(state.query));
      render();
    };

    const turn = (by) => {
      state.page += by;
      render();
      root.scrollIntoView();
    };

    const filters = root.querySelector(".filters");
    const filter = (group, label, n, color) => {
      const button = el("button", "", ...(color ? [dot(color)] : []), label, el("span", "n", number(n)));
      button.type = "button";
      button.dataset.group = group ?? "all";
      button.setAttribute("aria-pressed", String(group === null));
      button.addEventListener("click", () => {
        state.group = group;
        for (const other of filters.children) other.setAttribute("aria-pressed", String(other === button));
        search();
      });
      filters.append(button);
    };
    filter(null, "all", rows.length);
    for (const [group, label, color] of groups) {
      filter(group, label, rows.filter((row) => view.inGroup(row, group)).length, color ?? group);
    }

    root.querySelector("thead").append(el("tr", "", ...view.columns.map(([label]) => {
      const head = el("th", "", label);
      head.scope = "col";
      return head;
    })));
    let timer = 0;
    root.querySelector("input").addEventListener("input", (event) => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        state.query = event.target.value.trim().toLowerCase();
        search();
      }, SEARCH_DELAY_MS);
    });
    pages.querySelector(".previous").addEventListener("click", () => turn(-1));
    pages.querySelector(".next").addEventListener("click", () => turn(1));
    search();
  };

  for (const [id, view] of [["rewrites", rewrites], ["evaluation", evaluation], ["samples", samples]]) {
    const root = document.getElementById(id);
    if (root) browse(root, view);
  }
})();
