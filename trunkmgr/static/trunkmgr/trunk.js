/* One trunk's page: orders sent without leaving it, one question before what hurts, and tips on its timeline. */
'use strict';
(function () {
  var P = window.trunkmgr.part, ask = document.getElementById('ask'), tip = document.getElementById('tip');

  function tell(text, good) {
    var note = document.createElement('p');
    note.className = 'note ' + (good ? 'good' : 'bad');
    note.textContent = text;
    document.getElementById('messages').replaceChildren(note);
  }
  function send(form, button) {
    var label = button.textContent;
    P.hold();
    button.disabled = true;
    button.textContent = 'Sent, waiting';
    fetch(form.action, { method: 'POST', body: new FormData(form), headers: { Accept: 'application/json' } })
      .then(function (response) {
        if (response.redirected) { location.reload(); return null; }
        return response.json();
      })
      .then(function (result) { if (result) tell(result.message, result.ok); })
      .catch(function () { tell('No answer came: the connection to trunkmgr is lost.', false); })
      .finally(function () {
        button.disabled = false;
        button.textContent = label;
        if (ask.open) ask.close();
        P.release();
      });
  }
  document.addEventListener('submit', function (event) {
    if (!event.target.matches('form[data-verb]')) return;
    event.preventDefault();
    send(event.target, event.submitter || event.target.querySelector('button'));
  });
  /* The question is the page that a reader without JavaScript gets: one source, and fresh numbers in it. */
  document.addEventListener('click', function (event) {
    var link = event.target.closest('a[data-ask]');
    if (event.target.closest('[data-cancel]') && ask.open) { event.preventDefault(); ask.close(); }
    if (!link || event.ctrlKey || event.metaKey || !ask.showModal) return;
    event.preventDefault();
    fetch(link.href, { cache: 'no-store' }).then(function (response) { return response.text(); }).then(function (text) {
      var question = new DOMParser().parseFromString(text, 'text/html').getElementById('question');
      if (!question) { location.href = link.href; return; }
      ask.replaceChildren(document.adoptNode(question));
      ask.showModal();
    }).catch(function () { tell('No answer came: the connection to trunkmgr is lost.', false); });
  });
  ask.addEventListener('close', function () { ask.replaceChildren(); });

  function show(event) {
    var mark = event.target.closest && event.target.closest('#timeline g[data-title]');
    tip.hidden = !mark;
    if (!mark) return;
    var b = document.createElement('b'), box = mark.getBoundingClientRect();
    b.textContent = mark.dataset.title;
    tip.replaceChildren(b, mark.dataset.detail);
    tip.style.left = Math.max(8, Math.min(innerWidth - tip.offsetWidth - 8, box.left + box.width / 2 - tip.offsetWidth / 2)) + 'px';
    tip.style.top = Math.max(8, box.top - tip.offsetHeight - 8) + 'px';
  }
  addEventListener('mouseover', show);
  addEventListener('focusin', show);
  addEventListener('keydown', function (event) { if (event.key === 'Escape') tip.hidden = true; });
  document.addEventListener('part', function () { tip.hidden = true; });
})();
