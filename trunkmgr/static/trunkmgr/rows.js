/* The board's model: all trunks, what their workers make of them, which are shown and in which order.  Touches no page. */
'use strict';
trunkmgr.rows = (function () {
  var STATES = { ref: 'Refused', fail: 'Failing', unk: 'Unknown', work: 'Refreshing', ok: 'Registered', off: 'Disabled' };
  var ORDER = Object.keys(STATES), BAD = 3;
  var all = new Map(), incoming = null, nodes = {}, calls = {}, advice = {}, lapsed = {};

  function read(fields, values) {
    var row = {};
    for (var i = 0; i < fields.length; i++) row[fields[i]] = values[i];
    return row;
  }
  /* Nobody watches a trunk whose worker is silent; only what a person switched off stays what it is. */
  function see(row) {
    var node = nodes[row.worker] || nodes[''], silent = row.raw !== 'disabled' && !!node.cause;
    row.over = !silent && runOut(row);
    row.seen = silent || row.over ? 'unk' : row.state;
    row.word = row.seen === row.state ? row.label : STATES[row.seen];
    row.what = silent ? node.why : row.over ? lapsed.short : row.why;
    row.late = !silent && !!node.late;
    row.advice = silent ? [node.sentence, node.fix] : row.over ? [lapsed.sentence, lapsed.fix] : advice[row.l_uuid] || ['', ''];
    row.rank = ORDER.indexOf(row.seen);
    row.found = (row.local + ' ' + row.remote + ' ' + row.provider + ' ' + (row.code || '') + ' ' + row.reason + ' ' +
      row.what + ' ' + row.worker + ' ' + row.l_uuid).toLowerCase();
  }
  /* A good state whose time is over: the worker lives and tells nothing of it. */
  function runOut(row) {
    return (row.raw === 'registered' || row.raw === 'refreshing') && row.until != null &&
      trunkmgr.now() - row.until > lapsed.after;
  }
  /* Called with every beat; tells whether any trunk looks different now. */
  function age() {
    var moved = false;
    all.forEach(function (row) { if (!row.over && row.seen !== 'unk' && runOut(row)) { see(row); moved = true; } });
    return moved;
  }
  function setNodes(list) {
    var before = JSON.stringify(nodes);
    nodes = {};
    list.forEach(function (node) { nodes[node.name] = node; });
    if (JSON.stringify(nodes) === before) return false;
    all.forEach(see);
    return true;
  }
  function snapshot(message) {
    if (message.part === 0) {
      incoming = { fields: message.fields, rows: new Map() };
      calls = message.calls;
      advice = message.advice;
      lapsed = message.lapsed;
      setNodes(message.nodes);
    }
    if (!incoming) return false;
    message.rows.forEach(function (values) {
      var row = read(incoming.fields, values);
      incoming.rows.set(row.l_uuid, row);
    });
    if (!message.last) return false;
    all = incoming.rows;
    incoming = null;
    all.forEach(see);
    return true;
  }
  /* Returns the changed l_uuids. */
  function changes(message) {
    var changed = [];
    message.rows.forEach(function (row) {
      advice[row.l_uuid] = [row.sentence, row.fix];
      all.set(row.l_uuid, row);
      see(row);
      changed.push(row.l_uuid);
    });
    message.removed.forEach(function (l_uuid) { all.delete(l_uuid); delete calls[l_uuid]; });
    Object.keys(message.calls).forEach(function (l_uuid) { calls[l_uuid] = message.calls[l_uuid]; });
    return changed;
  }
  function setCalls(counts) {
    var same = JSON.stringify(calls) === JSON.stringify(counts);
    calls = counts;
    return !same;
  }
  /* What the server counts as well: rows and generations by stored state. */
  function sums() {
    var found = {};
    all.forEach(function (row) {
      var sum = found[row.raw] = found[row.raw] || [0, 0];
      sum[0] += 1;
      sum[1] += row.generation;
    });
    return found;
  }
  function worstFirst(a, b) {
    return a.rank - b.rank || (a.rank < BAD ? (a.since || 0) - (b.since || 0) : 0) ||
      (a.local < b.local ? -1 : a.local > b.local ? 1 : a.l_uuid < b.l_uuid ? -1 : 1);
  }
  function counts(rows) {
    var found = {};
    ORDER.forEach(function (state) { found[state] = 0; });
    rows.forEach(function (row) { found[row.seen] += 1; });
    return found;
  }
  function matching(filter) {
    var words = filter.text.toLowerCase().trim();
    return Array.from(all.values()).filter(function (row) {
      return (!filter.state || row.seen === filter.state) && (!filter.cause || row.what === filter.cause) &&
        (!filter.provider || row.provider === filter.provider) && (!words || row.found.indexOf(words) >= 0);
    }).sort(worstFirst);
  }
  /* Lines of the table: ['row', row], ['group', name, rows, counts, open], ['more', name, rows, hidden bad ones]. */
  function lines(rows, byProvider, open) {
    if (!byProvider) return rows.map(function (row) { return ['row', row]; });
    var groups = new Map(), out = [];
    rows.forEach(function (row) {
      if (!groups.has(row.provider)) groups.set(row.provider, []);
      groups.get(row.provider).push(row);
    });
    Array.from(groups, function (entry) {
      var count = counts(entry[1]);
      return { name: entry[0], rows: entry[1], counts: count, weight: count.ref * 3 + count.fail * 2 + count.unk };
    }).sort(function (a, b) {
      return b.weight - a.weight || b.rows.length - a.rows.length || (a.name < b.name ? -1 : 1);
    }).forEach(function (group) {
      var bad = group.rows.filter(function (row) { return row.rank < BAD; });
      var state = open[group.name] === undefined ? (bad.length ? 1 : 0) : open[group.name];
      out.push(['group', group.name, group.rows, group.counts, state, bad.length]);
      if (!state) return;
      var shown = state === 2 || group.rows.length <= 12 ? group.rows : bad.slice(0, 6);
      shown.forEach(function (row) { out.push(['row', row]); });
      if (shown.length < group.rows.length) out.push(['more', group.name, group.rows, bad.length - shown.length]);
    });
    return out;
  }
  /* The six biggest causes of what needs attention; names the provider where nearly all of one are. */
  function causes() {
    var found = new Map();
    all.forEach(function (row) {
      if (row.rank >= BAD) return;
      var cause = found.get(row.what) || { what: row.what, state: row.seen, count: 0, at: {} };
      cause.count += 1;
      cause.at[row.provider] = (cause.at[row.provider] || 0) + 1;
      found.set(row.what, cause);
    });
    return Array.from(found.values()).sort(function (a, b) { return b.count - a.count; }).slice(0, 6).map(function (cause) {
      var most = Object.keys(cause.at).sort(function (a, b) { return cause.at[b] - cause.at[a]; })[0];
      cause.where = cause.count > 2 && cause.at[most] / cause.count > 0.85 ? ' at ' + most : '';
      return cause;
    });
  }
  return {
    STATES: STATES, ORDER: ORDER, snapshot: snapshot, changes: changes, setNodes: setNodes, age: age, setCalls: setCalls, sums: sums,
    matching: matching, lines: lines, causes: causes, counts: counts,
    all: function () { return Array.from(all.values()); },
    get: function (l_uuid) { return all.get(l_uuid); },
    size: function () { return all.size; },
    calls: function (l_uuid) { return calls[l_uuid] || 0; },
    allCalls: function () { return Object.values(calls).reduce(function (a, n) { return a + n; }, 0); },
    providers: function () { return Array.from(new Set(Array.from(all.values(), function (r) { return r.provider; }))).sort(); }
  };
})();
