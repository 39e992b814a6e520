/* Light or dark: the system decides until the reader does.  Loaded before the style sheets, so that nothing flashes. */
'use strict';
(function () {
  var root = document.documentElement, kept = null;
  try { kept = localStorage.getItem('trunkmgr-theme'); } catch (e) { /* storage is off: the system's theme stays */ }
  if (kept === 'dark' || kept === 'light') root.dataset.theme = kept;
  document.addEventListener('DOMContentLoaded', function () {
    var button = document.getElementById('theme-switch');
    button.hidden = false;
    button.addEventListener('click', function () {
      var now = root.dataset.theme || (matchMedia('(prefers-color-scheme:dark)').matches ? 'dark' : 'light');
      var next = now === 'dark' ? 'light' : 'dark';
      root.dataset.theme = next;
      button.setAttribute('aria-label', 'Theme: ' + next + '. Switch theme');
      try { localStorage.setItem('trunkmgr-theme', next); } catch (e) { /* holds for this page only */ }
    });
  });
})();
