// Fetches the page anew every few seconds and puts its sections in the place of the old ones.
(() => {
  'use strict';
  const EVERY_MS = 5000;
  const button = document.getElementById('pause');
  const told = document.getElementById('told');
  let isPaused = false;
  let isBusy = false;

  // Whoever marks text, or types, is not disturbed there.
  const isInUse = (element) => {
    const selection = document.getSelection();
    const typesIn = document.activeElement.matches('input') && element.contains(document.activeElement);
    return typesIn || (selection.type === 'Range' && selection.containsNode(element, true));
  };

  const replace = (fresh) => {
    document.title = fresh.title;
    for (const id of ['now', 'access']) swap(document.getElementById(id), fresh.getElementById(id));
    const sections = (from) => [...from.querySelectorAll('main section')].map((section) => section.id).join();
    if (sections(document) !== sections(fresh)) {
      document.querySelector('main').replaceWith(document.importNode(fresh.querySelector('main'), true));
      return;
    }
    for (const section of document.querySelectorAll('main section')) swap(section, fresh.getElementById(section.id));
  };

  const swap = (old, fresh) => {
    if (!old || !fresh || isInUse(old) || old.isEqualNode(fresh)) return;
    old.replaceWith(document.importNode(fresh, true));
  };

  const refresh = async () => {
    if (isPaused || isBusy || document.hidden) return;
    isBusy = true;
    try {
      const answer = await fetch('./', { cache: 'no-store', signal: AbortSignal.timeout(EVERY_MS) });
      if (!answer.ok) throw new Error(`it answers ${answer.status}`);
      const text = await answer.text();
      if (isPaused) return;
      replace(new DOMParser().parseFromString(text, 'text/html'));
      if (told.textContent) told.textContent = '';
    } catch (error) {
      if (!told.textContent) told.textContent = `No news since ${new Date().toLocaleTimeString()}: ${error.message}`;
    } finally {
      isBusy = false;
    }
  };

  button.hidden = false;
  button.addEventListener('click', () => {
    isPaused = !isPaused;
    button.setAttribute('aria-pressed', String(isPaused));
    told.textContent = isPaused ? `Paused at ${new Date().toLocaleTimeString()}` : '';
    refresh();
  });
  document.addEventListener('visibilitychange', refresh);
  setInterval(refresh, EVERY_MS);
})();
