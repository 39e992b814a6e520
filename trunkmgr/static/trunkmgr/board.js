/* The board: draws the rows on screen from the model in rows.js.  Text is set, never parsed: names come from the network. */
'use strict';
(function () {
  var T = window.trunkmgr, R = T.rows, TODO_LIMIT = 12, GROUP_LIMIT = 200, DRAW_ALL = 150, MARGIN = 400;
  var GATHER = 500, HOLD = 5000, FLASH_LIMIT = 50, RESYNC = 30000;
  function $(id) { return document.getElementById(id); }
  var table = $('table'), body = $('rows'), full = $('full').dataset;
  var query = new URLSearchParams(location.search);
  var filter = { state: query.get('state') || '', cause: '', provider: '', text: query.get('q') || '' };
  var order = null, open = {}, lines = [], tops = [0], drawn = '', started = false;
  var changed = new Set(), waitingSince = 0, redraw = 0, spoken = { count: -1, at: 0 }, off = 0, resyncAt = 0;

  function make(id) { return $(id).content.querySelector('tr, .todo').cloneNode(true); }
  function icon(state, extra) {
    var svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg'), use = document.createElementNS(svg.namespaceURI, 'use');
    svg.setAttribute('class', 'ic ' + (extra || ''));
    svg.setAttribute('aria-hidden', 'true');
    use.setAttribute('href', '#' + state);
    svg.append(use);
    return svg;
  }
  function number(n) { return n.toLocaleString('en'); }
  function address(row) { return full.trunkUrl + encodeURIComponent(row.l_uuid) + '/'; }
  function count(element, moment, prefix) {
    if (moment == null) { element.removeAttribute('data-until'); element.textContent = '–'; return; }
    element.dataset.until = moment;
    element.dataset.prefix = prefix;
    element.textContent = T.left(moment, prefix);
  }

  function fill(tr, row, index) {
    function cell(name) { return tr.querySelector(name); }
    tr.dataset.uuid = row.l_uuid;
    tr.setAttribute('aria-rowindex', index + 2);
    tr.classList.toggle('late', row.late);
    var badge = cell('.badge'), code = row.code == null ? '–' : row.code;
    badge.className = 'badge b-' + row.seen;
    badge.querySelector('use').setAttribute('href', '#' + row.seen);
    badge.lastElementChild.textContent = row.word;
    cell('.acct').href = address(row);
    cell('.acct').title = row.local + ' → ' + row.remote;
    cell('.a1').textContent = row.local;
    cell('.a2').textContent = '→ ' + row.remote;
    cell('.cd').textContent = code;
    cell('.ph').textContent = ' ' + row.reason;
    cell('.why').textContent = row.what;
    var blind = row.seen === 'unk', until = blind ? null : row.until, next = blind ? null : row.next;
    cell('.x').classList.toggle('no-x', until == null);
    count(cell('.x'), until, '');
    count(cell('.n'), next, 'in ');
    cell('.cards-only').textContent = T.isLost() ? '' : until != null ? 'expires in ' : '';
    if (until == null && next != null) count(cell('.cards-only'), next, 'retry in ');
    else cell('.cards-only').removeAttribute('data-until');
    cell('.c-prov').textContent = row.provider;
    cell('.c-calls').textContent = number(R.calls(row.l_uuid));
    cell('.c-calls').classList.toggle('muted', !R.calls(row.l_uuid));
    cell('.c-worker').textContent = row.worker || '–';
  }
  function line(entry, index) {
    var tr, button;
    if (entry[0] === 'row') { tr = make('row'); fill(tr, entry[1], index); return tr; }
    tr = make(entry[0]);
    tr.setAttribute('aria-rowindex', index + 2);
    button = tr.querySelector('button');
    if (entry[0] === 'group') {
      button.dataset.group = entry[1];
      button.setAttribute('aria-expanded', String(!!entry[4]));
      button.querySelector('.name').textContent = entry[1];
      R.ORDER.forEach(function (state) {
        if (!entry[3][state]) return;
        var some = document.createElement('span'), word = document.createElement('span');
        some.className = 'cnt cn-' + state;
        word.className = 'gw';
        word.textContent = R.STATES[state].toLowerCase();
        some.append(icon(state, T.isLost() ? 'muted' : 'i-' + state), number(entry[3][state]), word);
        button.append(some);
      });
    } else {
      button.dataset.all = entry[1];
      button.textContent = 'Show all ' + number(entry[2].length) + ' trunks of ' + entry[1] +
        (entry[3] > 0 ? ' (' + number(entry[3]) + ' more need attention)' : '');
    }
    return tr;
  }
  function spacer(height) {
    var tr = document.createElement('tr'), td = document.createElement('td');
    tr.className = 'sp';
    tr.setAttribute('aria-hidden', 'true');
    td.colSpan = 8;
    td.style.height = height + 'px';
    tr.append(td);
    return tr;
  }
  function height(kind) {
    var phone = innerWidth <= 820;
    if (kind !== 'row') return phone ? 44 : 40;
    return phone ? 148 : document.body.classList.contains('compact') ? 34 : 56;
  }

  function layOut() {
    var rows = R.matching(filter), total = R.size();
    lines = R.lines(rows, order === 'provider', open);
    tops = [0];
    lines.forEach(function (entry, i) { tops[i + 1] = tops[i] + height(entry[0]); });
    table.setAttribute('aria-rowcount', lines.length + 1);
    $('count').textContent = rows.length === total ? number(total) + (total === 1 ? ' trunk' : ' trunks')
      : number(rows.length) + ' of ' + number(total) + ' trunks shown';
    $('clear').hidden = !(filter.state || filter.cause || filter.provider || filter.text);
    drawn = '';
    draw();
  }
  /* Only what is on screen stands in the page; spacers keep the height of the rest. */
  function draw() {
    if (!started) return;
    if (!lines.length) { body.replaceChildren(make('none')); $('drawn').textContent = ''; return; }
    var from = 0, to = lines.length, y = -body.getBoundingClientRect().top;
    if (lines.length > DRAW_ALL) {
      var low = 0, high = lines.length;
      while (low < high) { var mid = low + high >> 1; if (tops[mid + 1] < y - MARGIN) low = mid + 1; else high = mid; }
      from = Math.min(low, lines.length - 1);
      for (to = from; to < lines.length && tops[to] < y + innerHeight + MARGIN;) to++;
    }
    if (drawn === from + ':' + to) return;
    drawn = from + ':' + to;
    var focus = focused(), parts = [];
    if (from) parts.push(spacer(tops[from]));
    for (var i = from; i < to; i++) parts.push(line(lines[i], i));
    if (to < lines.length) parts.push(spacer(tops[lines.length] - tops[to]));
    body.replaceChildren.apply(body, parts);
    if (focus) { var again = body.querySelector(focus); if (again) again.focus({ preventScroll: true }); }
    $('drawn').textContent = lines.length > DRAW_ALL ? 'Only the ' + (to - from) + ' rows on screen are drawn' : '';
  }
  function focused() {
    var element = document.activeElement;
    if (!body.contains(element)) return '';
    if (element.dataset.group) return '[data-group="' + CSS.escape(element.dataset.group) + '"]';
    if (element.dataset.all) return '[data-all="' + CSS.escape(element.dataset.all) + '"]';
    var tr = element.closest('tr');
    return tr && tr.dataset.uuid ? 'tr[data-uuid="' + CSS.escape(tr.dataset.uuid) + '"] a' : '';
  }

  function heads(lostAt) {
    var rows = R.all(), c = R.counts(rows), need = c.ref + c.fail + c.unk, n = rows.length, calls = R.allCalls();
    $('full').hidden = !n;
    $('first').hidden = !!n;
    if ($('head-acts')) $('head-acts').hidden = !n;
    var head = !n ? 'Welcome' : need ? number(need) + ' of ' + number(n) + (n === 1 ? ' trunk' : ' trunks') + (need === 1 ? ' needs' : ' need') + ' attention'
      : n === 1 ? 'The trunk is fine' : 'All ' + number(n) + ' trunks are fine';
    var sub = !n ? 'Nothing to watch yet.' : number(c.ref) + ' refused by the provider, ' + number(c.fail) + ' failing, ' +
      number(c.unk) + ' unknown. ' + number(calls) + (calls === 1 ? ' call now.' : ' calls now.');
    $('headline').textContent = T.isLost() ? 'State unknown since ' + lostAt : head;
    $('subline').textContent = T.isLost() ? 'The last known picture is shown in grey.' : sub;
    document.title = (need && !T.isLost() ? '(' + need + ') ' : '') + 'Board · trunkmgr';
    document.querySelectorAll('.tot').forEach(function (tot) {
      var state = tot.value;
      tot.querySelector('b').textContent = number(c[state]);
      tot.classList.toggle('zero', !c[state]);
      tot.setAttribute('aria-pressed', String(filter.state === state));
    });
    if (!T.isLost()) speak(need, head);
    causes(n);
    todo(rows);
    providers();
  }
  /* One polite voice: only when the number of bad trunks changes, at most every ten seconds. */
  function speak(need, head) {
    if (spoken.count === -1) spoken.count = need;
    if (need === spoken.count || Date.now() - spoken.at < 10000) return;
    spoken = { count: need, at: Date.now() };
    $('spoken').textContent = head;
  }
  function causes(n) {
    var found = n > TODO_LIMIT ? R.causes() : [], box = $('causes');
    box.hidden = !found.length;
    var title = document.createElement('span');
    title.className = 'muted';
    title.textContent = 'Biggest causes';
    var focus = document.activeElement.dataset.cause;
    box.replaceChildren.apply(box, [title].concat(found.map(function (cause) {
      var chip = document.createElement('button'), b = document.createElement('b');
      chip.className = 'chip';
      chip.dataset.cause = cause.what;
      chip.setAttribute('aria-pressed', String(filter.cause === cause.what));
      b.textContent = number(cause.count);
      chip.append(icon(cause.state, T.isLost() ? 'muted' : 'i-' + cause.state), cause.what + cause.where + ' ', b);
      return chip;
    })));
    if (focus !== undefined) { var again = box.querySelector('[data-cause="' + CSS.escape(focus) + '"]'); if (again) again.focus(); }
  }
  function todo(rows) {
    var bad = rows.length <= TODO_LIMIT && !T.isLost() ? rows.filter(function (row) { return row.rank < 3 && row.advice[0]; }) : [];
    $('todo').hidden = !bad.length;
    if ($('todo-list').contains(document.activeElement)) return;
    $('todo-list').replaceChildren.apply($('todo-list'), bad.sort(function (a, b) { return a.rank - b.rank; }).map(function (row) {
      var item = make('todo-row'), svg = item.querySelector('svg');
      svg.setAttribute('class', 'ic i-' + row.seen);
      svg.firstElementChild.setAttribute('href', '#' + row.seen);
      item.querySelector('b').textContent = row.advice[0];
      item.querySelector('.muted').textContent = row.local;
      item.querySelector('p').textContent = row.advice[1];
      item.querySelector('.details').href = address(row);
      item.querySelector('.edit').href = full.editUrl.replace('/0/', '/' + row.id + '/');
      item.querySelector('.edit').hidden = !full.editUrl || row.seen !== 'ref';
      return item;
    }));
  }
  function providers() {
    var select = $('provider'), names = R.providers();
    if (Array.from(select.options, function (o) { return o.value; }).slice(1).join('\n') === names.join('\n')) return;
    select.replaceChildren.apply(select, [new Option('All providers', '')].concat(names.map(function (n) { return new Option(n, n); })));
    select.value = names.indexOf(filter.provider) >= 0 ? filter.provider : filter.provider = '';
  }

  /* Changes gather; rows on screen change in place, and move only while nobody points at them, or after five seconds. */
  function gather() {
    if (!redraw) redraw = setTimeout(function () { redraw = 0; if (!document.hidden) show(); }, GATHER);
  }
  function show() {
    heads();
    var flash = changed.size <= FLASH_LIMIT ? changed : new Set(), held = table.matches(':hover') || table.contains(document.activeElement);
    if (!waitingSince) waitingSince = Date.now();
    if (held && Date.now() - waitingSince < HOLD) {
      body.querySelectorAll('tr.r').forEach(function (tr) {
        var entry = lines[tr.getAttribute('aria-rowindex') - 2];
        if (!entry || !changed.has(tr.dataset.uuid)) return;
        entry[1] = R.get(tr.dataset.uuid) || entry[1];
        fill(tr, entry[1], tr.getAttribute('aria-rowindex') - 2);
      });
      mark(flash);
      changed.clear();
      return gather();
    }
    waitingSince = 0;
    layOut();
    mark(flash);
    changed.clear();
  }
  function mark(uuids) {
    body.querySelectorAll('tr.r').forEach(function (tr) {
      if (!uuids.has(tr.dataset.uuid)) return;
      tr.classList.add('flash');
      setTimeout(function () { tr.classList.remove('flash'); }, 950);
    });
  }
  /* A message may be lost on its way (the channel layer drops rather than waits): compare sums, ask for a snapshot. */
  function compare(sums) {
    var ours = R.sums(), states = new Set(Object.keys(ours).concat(Object.keys(sums)));
    var same = Array.from(states).every(function (s) { return String(ours[s]) === String(sums[s]); });
    off = same ? 0 : off + 1;
    if (off < 3 || Date.now() < resyncAt) return;
    off = 0;
    resyncAt = Date.now() + RESYNC;
    T.send({ want: 'snapshot' });
  }

  function setOrder(next) {
    order = next;
    document.querySelectorAll('[data-order]').forEach(function (b) { b.setAttribute('aria-pressed', String(b.dataset.order === order)); });
    layOut();
  }
  function setDensity(density) {
    document.body.classList.toggle('compact', density === 'compact');
    document.querySelectorAll('[data-density]').forEach(function (b) { b.setAttribute('aria-pressed', String(b.dataset.density === density)); });
    try { localStorage.setItem('trunkmgr-density', density); } catch (e) { /* holds for this page only */ }
    layOut();
  }
  function clear() {
    filter = { state: '', cause: '', provider: '', text: '' };
    $('q').value = '';
    $('provider').value = '';
  }
  function listen() {
    $('q').value = filter.text;
    $('q').addEventListener('input', function () { filter.text = this.value; layOut(); });
    $('provider').addEventListener('change', function () { filter.provider = this.value; layOut(); });
    addEventListener('scroll', function () { requestAnimationFrame(draw); }, { passive: true });
    addEventListener('resize', layOut);
    addEventListener('keydown', function (e) {
      if (e.key !== '/' || e.ctrlKey || e.metaKey || e.altKey || /INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) return;
      e.preventDefault();
      $('q').focus();
    });
    addEventListener('click', function (e) {
      var b = e.target.closest('button');
      if (!b) return;
      var d = b.dataset;
      if (d.order) return setOrder(d.order);
      if (d.density) return setDensity(d.density);
      if (b.name === 'state') { e.preventDefault(); filter.state = filter.state === b.value ? '' : b.value; }
      else if (d.cause !== undefined) filter.cause = filter.cause === d.cause ? '' : d.cause;
      else if (d.group !== undefined) {
        var entry = lines.find(function (l) { return l[0] === 'group' && l[1] === d.group; });
        open[d.group] = entry[4] ? 0 : entry[5] ? 1 : 2;
      } else if (d.all !== undefined) open[d.all] = 2;
      else if (b.id === 'clear' || d.clear !== undefined) clear();
      else return;
      heads();
      layOut();
    });
  }
  function begin() {
    started = true;
    $('tools').hidden = false;
    listen();
    var density = 'comfortable';
    try { density = localStorage.getItem('trunkmgr-density') || density; } catch (e) { /* storage is off */ }
    order = R.size() > GROUP_LIMIT ? 'provider' : 'flat';
    setDensity(density);
    setOrder(order);
  }

  T.start({
    onMessage: function (message, fresh) {
      if (message.kind === 'snapshot') {
        if (!R.snapshot(message)) return;
        fresh();
        if (!started) begin();
        heads();
        layOut();
      } else if (message.kind === 'changes') {
        R.changes(message).forEach(function (l_uuid) { changed.add(l_uuid); });
        gather();
      } else if (message.kind === 'beat') {
        var moved = R.setNodes(message.nodes), called = message.calls && R.setCalls(message.calls);
        if (R.age() || moved || called) gather();
        if (message.sums) compare(message.sums);
      }
    },
    onLost: function (lost, at) { heads(at); layOut(); },
    onVisible: function () { if (started) show(); }
  });
})();
