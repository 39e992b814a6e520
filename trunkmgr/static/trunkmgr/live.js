/* The connection to the server: messages, the server's clock, countdowns, and the banner when nothing comes any more. */
'use strict';
window.trunkmgr = (function () {
  var SILENT = 10000, BACK_OFF = [2, 4, 8, 15, 30], SIGNED_OUT = 4403;
  var body = document.body, offset = +body.dataset.now - Date.now() / 1000;
  var socket = null, tries = 0, retryAt = 0, lastHeard = Date.now(), lost = false, closed = false, page = {};
  function $(id) { return document.getElementById(id); }

  function now() { return Date.now() / 1000 + offset; }
  function setClock(seconds) { offset = seconds - Date.now() / 1000; }
  function two(n) { return String(n).padStart(2, '0'); }
  function duration(seconds) {
    var s = Math.max(0, Math.floor(seconds)), h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
    if (h >= 24) return Math.floor(h / 24) + ' d ' + h % 24 + ' h';
    return h ? h + ' h ' + two(m) + ' min' : m ? m + ' min ' + two(s % 60) + ' s' : s + ' s';
  }
  function left(until, prefix) {
    if (until == null || lost) return '–';
    var s = until - now();
    return s < 1 ? 'now' : (prefix || '') + duration(s);
  }
  function clock(date) { return two(date.getHours()) + ':' + two(date.getMinutes()) + ':' + two(date.getSeconds()); }

  /* Server times in the reader's own zone; the title keeps zone and date. */
  function localise(where) {
    where.querySelectorAll('time[data-form]').forEach(function (t) {
      var d = new Date(t.dateTime), full = d.toLocaleString([], { dateStyle: 'medium', timeStyle: 'long' });
      var form = t.dataset.form, short = clock(d).slice(0, 5);
      t.textContent = form === 'full' ? full : form === 'H:i' ? short : form === 'H:i:s' ? clock(d)
        : d.toLocaleDateString([], { day: 'numeric', month: 'short' }) + ' ' + short;
      t.title = full;
      delete t.dataset.form;
    });
  }
  function tick() {
    if (document.hidden) return;
    document.querySelectorAll('[data-until]').forEach(function (e) {
      var text = left(+e.dataset.until, e.dataset.prefix);
      if (e.textContent !== text) e.textContent = text;
    });
    document.querySelectorAll('[data-since]').forEach(function (e) {
      if (!lost) e.textContent = duration(now() - e.dataset.since);
    });
  }

  function showLive() {
    $('live').hidden = false;
    $('live-text').textContent = lost ? 'Not live' : socket && socket.readyState === 1 ? 'Live' : 'Connecting';
    if (lost && !closed) {
      var wait = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
      $('lost-text').textContent = 'What you see is from ' + clock(new Date(lastHeard)) + ' and may be out of date. ' +
        (wait ? 'Trying again in ' + wait + ' s (try ' + (tries + 1) + ').' : 'Trying again now.');
    }
  }
  function setLost(value) {
    if (lost === value) return;
    lost = value;
    body.classList.toggle('stale', lost);
    body.classList.toggle('lost', lost);
    $('lost').hidden = !lost;
    showLive();
    tick();
    if (page.onLost) page.onLost(lost, clock(new Date(lastHeard)));
  }
  /* Colour comes back only once the page shows fresh data: its first snapshot, not the open socket. */
  function fresh() { tries = 0; lastHeard = Date.now(); setLost(false); showLive(); }

  /* What nobody shall forget, such as registrations that are stopped. */
  function showNotices(texts) {
    var box = $('notices'), lines = texts.map(function (text) {
      var line = document.createElement('p');
      line.className = 'note bad';
      line.textContent = text;
      return line;
    });
    if (box.textContent !== texts.join('')) box.replaceChildren.apply(box, lines);
  }

  function open() {
    retryAt = 0;
    socket = new WebSocket((location.protocol === 'https:' ? 'wss://' : 'ws://') + location.host + body.dataset.socket);
    var mine = socket;
    socket.onmessage = function (event) {
      if (mine !== socket) return;
      var message = JSON.parse(event.data);
      if (message.now) setClock(message.now);
      if (message.notices) showNotices(message.notices);
      if (!lost) lastHeard = Date.now();
      page.onMessage(message, fresh);
    };
    socket.onclose = function (event) {
      if (mine !== socket) return;
      if (event.code === SIGNED_OUT) {
        closed = true;
        setLost(true);
        $('lost-title').textContent = 'You are signed out.';
        $('lost-text').textContent = 'Load the page again to sign in.';
        $('retry').textContent = 'Sign in';
        return;
      }
      retry();
    };
    showLive();
  }
  function retry() {
    var wait = BACK_OFF[Math.min(tries, BACK_OFF.length - 1)] * (0.8 + 0.4 * Math.random());
    tries += 1;
    retryAt = Date.now() + wait * 1000;
    showLive();
  }
  function check() {
    if (closed) return;
    if (Date.now() - lastHeard > SILENT && !lost) {
      setLost(true);
      /* Open and mute: a dead path, not a closed one. */
      if (socket && socket.readyState < 2) { var old = socket; socket = null; old.close(); retry(); }
    }
    if (retryAt && Date.now() >= retryAt) open();
    if (lost) showLive();
  }
  function start(handlers) {
    page = handlers;
    $('retry').addEventListener('click', function () {
      if (closed) return location.reload();
      if (socket) { var old = socket; socket = null; old.close(); }
      open();
    });
    setInterval(function () { tick(); check(); }, 1000);
    document.addEventListener('visibilitychange', function () {
      if (document.hidden) return;
      tick();
      if (page.onVisible) page.onVisible();
    });
    localise(document);
    open();
  }
  return {
    start: start, now: now, duration: duration, left: left, localise: localise, tick: tick,
    isLost: function () { return lost; },
    send: function (message) { if (socket && socket.readyState === 1) socket.send(JSON.stringify(message)); }
  };
})();
