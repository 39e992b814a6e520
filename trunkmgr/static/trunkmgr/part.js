/* Pages that the server draws whole: a message tells that something moved, and the part is fetched and swapped. */
'use strict';
trunkmgr.part = (function () {
  var T = window.trunkmgr, PAUSE = 500, BEATS = 6, timer = 0, beats = 0, loading = false, again = false, held = 0, whenFresh = null;

  function refresh() {
    if (document.hidden && !whenFresh) { again = true; return; }
    if (loading || held) { again = true; return; }
    loading = true;
    again = false;
    fetch(location.href, { headers: { Accept: 'text/html' }, cache: 'no-store' }).then(function (response) {
      if (response.redirected) { location.reload(); throw new Error('signed out'); }
      return response.text();
    }).then(function (text) {
      var fetched = new DOMParser().parseFromString(text, 'text/html').getElementById('part');
      /* Who is copying a text keeps it; the next beats bring the news. */
      if (fetched && !held && (whenFresh || getSelection().isCollapsed)) swap(document.adoptNode(fetched));
      if (whenFresh) { whenFresh(); whenFresh = null; }
    }).catch(function () { /* the connection's banner tells */ }).finally(function () {
      loading = false;
      if (again) later();
    });
  }
  function swap(fetched) {
    var part = document.getElementById('part'), focus = part.contains(document.activeElement) && document.activeElement.id;
    T.localise(fetched);
    part.replaceWith(fetched);
    T.tick();
    var element = focus && document.getElementById(focus);
    if (element) element.focus({ preventScroll: true });
    document.dispatchEvent(new Event('part'));
  }
  /* At most two swaps a second, however much happens. */
  function later() {
    if (!timer) timer = setTimeout(function () { timer = 0; refresh(); }, PAUSE);
  }
  T.start({
    onMessage: function (message, fresh) {
      if (message.kind === 'hello') { whenFresh = fresh; refresh(); }
      else if (message.kind === 'stale') later();
      /* Ages on the page grow, and a message may have been lost. */
      else if (message.kind === 'beat' && ++beats % BEATS === 0) later();
    },
    onVisible: function () { if (again) refresh(); }
  });
  return {
    refresh: refresh,
    /* While a form waits for its answer its button must not be swapped away. */
    hold: function () { held += 1; },
    release: function () { held -= 1; if (!held) refresh(); }
  };
})();
