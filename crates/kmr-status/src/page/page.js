"use strict";
// Shows the status of a consumer, once a second. All text is written as text, never as markup.
(() => {
  const MINUTES = 10,
    ROWS = 100,
    LOST_AFTER = 4000;
  const $ = (id) => document.getElementById(id);
  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const put = (node, text) => {
    if (node.textContent !== text) node.textContent = text;
  };
  const attribute = (node, name, value) => {
    if (value === null) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  };

  // Texts of values.
  const grouped = new Intl.NumberFormat("en");
  const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });
  const count = (n) => (n === null || n === undefined ? "–" : grouped.format(n));
  const brief = (n) =>
    n === null || n === undefined ? "–" : n < 1e6 ? grouped.format(Math.round(n)) : short.format(n);
  const bytes = (n) => {
    let unit = 0;
    while (n >= 1024 && unit < 4) {
      n /= 1024;
      unit += 1;
    }
    return (
      (unit && n < 100 ? n.toFixed(1) : Math.round(n)) +
      " " +
      ["B", "KiB", "MiB", "GiB", "TiB"][unit]
    );
  };
  const time = (s) => {
    if (s === null || s === undefined) return "–";
    if (s < 10) return s.toFixed(1) + " s";
    if (s < 120) return Math.floor(s) + " s";
    if (s < 7200) return Math.floor(s / 60) + " min";
    if (s < 172800) return Math.floor(s / 3600) + " h";
    return Math.floor(s / 86400) + " d";
  };
  const clock = (millis) => new Date(millis).toLocaleTimeString("en-GB");
  const day = (millis) =>
    new Date(millis).toDateString() === new Date().toDateString()
      ? clock(millis)
      : new Date(millis).toLocaleDateString("en-GB", { day: "numeric", month: "short" }) +
        " " +
        clock(millis);
  const percent = (part, all) => (all > 0 ? Math.min(100, Math.round((100 * part) / all)) : 0);

  // Makes the children of a node fit the items, and keeps the nodes of items that stay.
  const fit = (parent, items, key, create, update) => {
    const known = parent.known || (parent.known = new Map());
    const seen = new Set();
    let at = parent.firstElementChild;
    for (const item of items) {
      const name = key(item);
      seen.add(name);
      let node = known.get(name);
      if (!node) known.set(name, (node = create(item)));
      update(node, item);
      if (node === at) at = at.nextElementSibling;
      else parent.insertBefore(node, at);
    }
    for (const [name, node] of known)
      if (!seen.has(name)) {
        node.remove();
        known.delete(name);
      }
  };

  const bar = (node, share, label) => {
    attribute(node, "data-kind", share >= 100 ? "bad" : share >= 80 ? "warn" : "calm");
    attribute(node, "aria-valuenow", share);
    attribute(node, "aria-valuetext", label);
    node.firstElementChild.style.width = share + "%";
  };

  // Header.
  const header = (s) => {
    const kind =
      s.state === "running"
        ? s.healthy && s.responsive
          ? "good"
          : "bad"
        : s.state === "ended" || s.state === "reconnecting"
          ? "bad"
          : "warn";
    const word =
      s.state !== "running" ? s.state : s.healthy ? (s.all_paused ? "paused" : "healthy") : "late";
    put($("state"), word);
    attribute($("state"), "data-kind", s.all_paused && kind === "good" ? "warn" : kind);
    put($("group"), s.group || "without a group");
    put($("reason"), s.reason);
    put($("uptime"), time(s.uptime_seconds));
    put($("instance"), s.instance ? "instance " + s.instance : "");
    document.title = word + " · " + (s.group || "kmr");
  };

  // Throughput and lag of the last minutes.
  let history = [];
  const remember = (s) => {
    const last = history[history.length - 1];
    if (last && s.time < last[0]) history = [];
    history.push([s.time, s.totals.records, s.totals.rows, s.lag_records]);
    // The server's samples are two seconds apart, and so are those that stay.
    const third = history[history.length - 3];
    if (third && s.time - third[0] < 2900) history.splice(-2, 1);
    while (history.length && s.time - history[0][0] > MINUTES * 60000) history.shift();
  };
  const rates = (column) =>
    history.slice(1).map((sample, i) => {
      const before = history[i],
        seconds = (sample[0] - before[0]) / 1000;
      return [
        sample[0],
        seconds > 0 ? Math.max(0, (sample[column] - before[column]) / seconds) : 0,
      ];
    });
  const spark = (svg, points, unit) => {
    if (points.length < 2) return;
    const end = points[points.length - 1][0],
      start = Math.min(points[0][0], end - 60000);
    const top = Math.max(1, ...points.map((p) => p[1]));
    const line = points
      .map(
        ([t, v], i) =>
          (i ? "L" : "M") +
          ((300 * (t - start)) / (end - start)).toFixed(1) +
          " " +
          (42 - (40 * v) / top).toFixed(1),
      )
      .join("");
    const first = ((300 * (points[0][0] - start)) / (end - start)).toFixed(1);
    svg.querySelector(".line").setAttribute("d", line);
    svg.querySelector(".area").setAttribute("d", line + "L300 44L" + first + " 44Z");
    attribute(
      svg,
      "aria-label",
      unit + ", last " + time((end - points[0][0]) / 1000) + ", highest " + brief(top),
    );
  };
  const average = (points) => {
    const last = points.slice(-3);
    return last.length ? last.reduce((sum, p) => sum + p[1], 0) / last.length : null;
  };

  const tiles = (s) => {
    const records = rates(1),
      rows = rates(2);
    put($("rate"), brief(average(records)));
    put($("rows"), brief(average(rows)));
    put($("lag"), brief(s.lag_records));
    put($("lag-seconds"), s.lag_seconds >= 1 ? "oldest " + time(s.lag_seconds) : "");
    spark($("spark-records"), records, "Records per second");
    spark($("spark-rows"), rows, "Rows per second");
    spark(
      $("spark-lag"),
      history.map((sample) => [sample[0], sample[3]]),
      "Lag in records",
    );
    const m = s.memory,
      share = percent(m.used_bytes, m.budget_bytes);
    put($("memory"), bytes(m.used_bytes));
    put($("memory-of"), "of " + bytes(m.budget_bytes));
    bar($("memory-bar"), share, share + " %");
    const totals = [
      ["records", s.totals.records],
      ["commits", s.totals.commits],
      ["dead letters", s.totals.dead_letters],
      ["rebalances", s.totals.rebalances],
      ["clients replaced", s.totals.client_replacements],
      ["offset resets", s.totals.offset_resets],
    ];
    fit(
      $("totals"),
      totals,
      (t) => t[0],
      (t) => {
        const group = make("div");
        group.append(make("dt", "", t[0]), make("dd"));
        return group;
      },
      (node, t) => put(node.lastElementChild, brief(t[1])),
    );
  };

  // Pipeline.
  const node = (name, text) => ({ name, text });
  const channel = (name, share, text, label) => ({ name, share, text, label });
  const input = (stage) =>
    channel(
      "to " + stage.name,
      percent(stage.waiting, stage.capacity),
      stage.waiting + " of " + stage.capacity + " chunks",
      "channel to " + stage.name,
    );
  const deliveries = (stage) => stage.deliveries + " of " + stage.max_deliveries + " deliveries";
  const draw = (list, parts) =>
    fit(
      list,
      parts,
      (part) => part.name,
      (part) => {
        const item = make("li", "share" in part ? "channel" : "node");
        if ("share" in part) {
          const meter = make("div", "bar");
          meter.setAttribute("role", "meter");
          meter.setAttribute("aria-label", part.label);
          meter.setAttribute("aria-valuemin", "0");
          meter.setAttribute("aria-valuemax", "100");
          meter.append(make("i"));
          item.append(make("span"), meter);
        } else {
          item.append(make("b", "", part.name), make("span"));
        }
        return item;
      },
      (item, part) => {
        put(item.querySelector("span"), part.text);
        if ("share" in part) bar(item.querySelector(".bar"), part.share, part.text);
      },
    );
  const graph = (s) => {
    const stages = s.stages.filter((stage) => stage.name !== "reduce_err");
    const errors = s.stages.find((stage) => stage.name === "reduce_err");
    const owned = s.partitions.length;
    const parts = [
      node("fetch", owned + (owned === 1 ? " partition" : " partitions")),
      channel(
        "to map",
        percent(s.memory.unmapped_bytes, s.memory.budget_bytes),
        bytes(s.memory.unmapped_bytes),
        "channel to map",
      ),
      node("map", count(s.totals.records) + " records"),
    ];
    for (const stage of stages) parts.push(input(stage), node(stage.name, deliveries(stage)));
    parts.push(node("commit", count(s.totals.commits) + " commits"));
    draw($("graph"), parts);
    $("graph-errors").hidden = !errors;
    if (errors)
      draw($("graph-errors"), [
        node("failed records", count(s.totals.dead_letters) + " dead letters"),
        input(errors),
        node("reduce_err", deliveries(errors)),
      ]);
  };

  // Partitions.
  const name = (p) => p.topic + "/" + p.partition;
  const severity = (p) => (p.late ? 3 : p.age_seconds >= 10 ? 2 : p.lag_seconds >= 30 ? 1 : 0);
  const stateOf = (p) =>
    p.late
      ? ["late", "bad"]
      : p.paused
        ? ["paused", "warn"]
        : p.age_seconds >= 10
          ? ["waiting", "warn"]
          : p.oldest_unfinished !== null || p.lag_records > 0
            ? ["working", "good"]
            : ["idle", "calm"];
  const compareNames = (a, b) =>
    a.topic < b.topic ? -1 : a.topic > b.topic ? 1 : a.partition - b.partition;
  // Steps of ages and lags, so that rows of about the same age keep their places.
  const step = (n) => Math.floor(2 * Math.log2(1 + (n || 0)));
  const worst = (a, b) =>
    severity(b) - severity(a) ||
    (severity(a)
      ? step(b.age_seconds) - step(a.age_seconds) || step(b.lag_records) - step(a.lag_records)
      : 0);
  const number = (field) => (a, b) =>
    (a[field] === null ? -1 : a[field]) - (b[field] === null ? -1 : b[field]);
  const COLUMNS = [
    { title: "State", order: worst, first: 1 },
    { title: "Partition", kind: "text name", order: compareNames, first: 1, show: name },
    {
      title: "Waits for",
      kind: "text waits",
      order: (a, b) => ((a.waits_for || "\uffff") < (b.waits_for || "\uffff") ? -1 : 1),
      first: 1,
      show: (p) => p.waits_for || "–",
    },
    { title: "Lag", label: "lag", order: number("lag_records"), show: (p) => count(p.lag_records) },
    {
      title: "Lag time",
      label: "oldest",
      order: number("lag_seconds"),
      show: (p) => time(p.lag_seconds),
    },
    {
      title: "Age",
      label: "age",
      order: number("age_seconds"),
      show: (p) => (p.oldest_unfinished === null && !p.late ? "–" : time(p.age_seconds)),
    },
    {
      title: "Oldest unfinished",
      minor: true,
      order: number("oldest_unfinished"),
      show: (p) => count(p.oldest_unfinished),
    },
    {
      title: "Committed",
      minor: true,
      order: number("committed"),
      show: (p) => count(p.committed),
    },
    { title: "Position", minor: true, order: number("position"), show: (p) => count(p.position) },
    { title: "Log end", minor: true, order: number("log_end"), show: (p) => count(p.log_end) },
  ];
  let sorted = COLUMNS[0],
    direction = 1,
    showAll = false,
    last = null;
  for (const column of COLUMNS) {
    const head = make("th", (column.kind || "").includes("text") ? "text" : ""),
      button = make("button", "", column.title);
    head.setAttribute("role", "columnheader");
    head.scope = "col";
    if (column.minor) head.dataset.minor = "";
    button.type = "button";
    button.addEventListener("click", () => {
      direction = sorted === column ? -direction : column.first || -1;
      sorted = column;
      if (last) partitions(last);
    });
    head.append(button);
    $("columns").append((column.head = head));
  }
  $("all").addEventListener("click", () => {
    showAll = !showAll;
    if (last) partitions(last);
  });
  const partitions = (s) => {
    for (const column of COLUMNS)
      attribute(
        column.head,
        "aria-sort",
        column === sorted
          ? direction > 0 === (column !== COLUMNS[0])
            ? "ascending"
            : "descending"
          : null,
      );
    const all = [...s.partitions].sort(
      (a, b) => direction * sorted.order(a, b) || compareNames(a, b),
    );
    const late = all.filter((p) => p.late).length;
    put($("partitions-count"), all.length + (late ? ", " + late + " late" : ""));
    $("no-partitions").hidden = all.length > 0;
    $("all").hidden = all.length <= ROWS;
    put($("all"), showAll ? "Show the first " + ROWS : "Show all " + all.length);
    fit(
      $("rows-of-partitions"),
      showAll ? all : all.slice(0, ROWS),
      name,
      () => {
        const row = make("tr");
        row.setAttribute("role", "row");
        for (const column of COLUMNS) {
          const cell = make("td", column.kind || "");
          cell.setAttribute("role", "cell");
          if (column.label) cell.dataset.name = column.label;
          if (column.minor) cell.dataset.minor = "";
          if (!column.show) cell.append(make("span", "pill"));
          row.append(cell);
        }
        return row;
      },
      (row, p) => {
        const [word, kind] = stateOf(p),
          pill = row.firstElementChild.firstElementChild;
        put(pill, word);
        attribute(pill, "data-kind", kind);
        attribute(row, "data-kind", kind);
        COLUMNS.forEach((column, i) => {
          if (column.show) put(row.children[i], column.show(p));
        });
      },
    );
  };

  // Lists.
  const line = () => {
    const item = make("li");
    item.append(make("span", "key"), make("span"), make("span", "detail"));
    return item;
  };
  const write = (item, key, text, detail, bad) => {
    put(item.children[0], key);
    put(item.children[1], text);
    put(item.children[2], detail || "");
    item.children[1].className = bad ? "bad" : "";
  };
  const list = (node, items, key, update, empty) => {
    const shown = items.length ? items : [null];
    fit(
      node,
      shown,
      (item) => (item ? key(item) : "empty"),
      (item) => (item ? line() : make("li", "empty", empty)),
      (row, item) => {
        if (item) update(row, item);
      },
    );
  };
  const lists = (s) => {
    put($("deliveries-count"), s.deliveries.length ? String(s.deliveries.length) : "");
    let place = 0;
    const some = s.deliveries.slice(0, 20).map((d) => ({ ...d, place: place++ }));
    list(
      $("deliveries"),
      some,
      (d) => "delivery " + d.place,
      (row, d) =>
        write(
          row,
          d.stage,
          "attempt " + d.attempt + ", " + time(d.seconds),
          d.last_error,
          d.attempt > 1,
        ),
      "No delivery is in progress.",
    );
    const of = (kind) => s.events.filter((e) => e.kind === kind);
    const key = (e) => [e.first_time, e.stage, e.text].join("\n");
    const where = (e) =>
      [
        e.topic !== null ? e.topic + "/" + e.partition : "",
        e.offset !== null ? "offset " + count(e.offset) : "",
        e.stage || "",
      ]
        .filter(Boolean)
        .join(" · ");
    const times = (e) => (e.count > 1 ? count(e.count) + " × " : "");
    const since = (e) => (e.time - e.first_time >= 1000 ? " · since " + day(e.first_time) : "");
    list(
      $("errors"),
      of("error"),
      key,
      (row, e) => write(row, day(e.time), times(e) + e.text, where(e) + since(e), true),
      "None.",
    );
    list(
      $("dead"),
      of("dead_letter"),
      key,
      (row, e) =>
        write(
          row,
          day(e.time),
          count(e.count) +
            (e.count === 1 ? " dead letter" : " dead letters") +
            (e.text ? ", " + e.text : ""),
          where(e) + since(e),
        ),
      "None.",
    );
    list(
      $("rebalances"),
      of("rebalance"),
      key,
      (row, e) => write(row, day(e.time), e.text),
      "None yet.",
    );
  };

  // Actions.
  let armed = 0;
  const act = async (button) => {
    const action = button.dataset.action,
      result = $("action-result");
    if (action === "drain" && !armed) {
      put(button, "Press again to stop");
      armed = setTimeout(disarm, 5000, button);
      return;
    }
    disarm($("action-form").querySelector("[data-action=drain]"));
    put(result, "…");
    try {
      const response = await fetch(new URL("actions/" + action, document.baseURI), {
        method: "POST",
        headers: { Authorization: "Bearer " + $("token").value },
      });
      const body = await response.json();
      put(result, response.ok ? action + " accepted" : body.error);
    } catch (error) {
      put(result, "not sent: " + error.message);
    }
  };
  const disarm = (button) => {
    clearTimeout(armed);
    armed = 0;
    put(button, "Drain and stop");
  };
  $("action-form").addEventListener("submit", (event) => event.preventDefault());
  for (const button of $("action-form").querySelectorAll("button"))
    button.addEventListener("click", () => act(button));

  // The connection.
  let heard = 0,
    source = null;
  const render = (s) => {
    last = s;
    heard = Date.now();
    $("lost").hidden = true;
    $("main").classList.remove("stale", "first");
    put($("live"), "live, " + clock(s.time));
    $("actions").hidden = !s.actions;
    remember(s);
    for (const part of [header, tiles, graph, partitions, lists]) part(s);
  };
  const lost = () => {
    $("lost").hidden = false;
    $("main").classList.add("stale");
    put($("live"), "not live");
    put($("state"), "no connection");
    attribute($("state"), "data-kind", "unknown");
    document.title = "no connection · kmr";
    put(
      $("lost"),
      last
        ? "Connection lost. The values are from " + clock(last.time) + ". Trying again."
        : "No connection to the consumer yet. Trying again.",
    );
  };
  const connect = () => {
    source = new EventSource(new URL("events", document.baseURI));
    source.addEventListener("history", (event) => {
      history = JSON.parse(event.data);
    });
    source.addEventListener("message", (event) => render(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      lost();
      // The browser connects again by itself, unless the server answered with an error.
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
    });
  };
  setInterval(() => {
    if (heard && Date.now() - heard > LOST_AFTER) lost();
  }, 1000);
  connect();
})();
