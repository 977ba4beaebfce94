() => {
  // docs/ui-protocol.md describes the attributes and events that this script reads and sends.
  // A1111 and Forge render the page inside theirs, where it may be set up twice.
  if (window.unziplora) return [];
  const root = () => document.querySelector('gradio-app')?.shadowRoot ?? document;
  const find = (id) => root().querySelector('#' + id);
  const seen = (element) => element !== null && element.offsetParent !== null;
  window.unziplora = {requests: {}, polled: 0, mergePolled: 0};
  // What only makes sense on the computer that the program runs on is shown there only.
  const here = ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname);
  document.body.classList.toggle('uz-here', here);

  // Asks for news every second while a run is active, else every third: gradio 3.41 has no timer.
  // From another tab every tenth while a run is active, so that its end is noticed there.
  // Not again before the last answer, unless that is lost: a busy computer is slow to give it.
  let idle = 2;
  const poll = () => {
    nameNumbers();
    if (uploading()) return;
    pollMerge();
    pollLists();
    const live = find('uz_live');
    const active = live?.querySelector('[data-active]');
    if (document.hidden || !(seen(live) || active)) return;
    idle = (idle + 1) % (!seen(live) ? 10 : active ? 1 : 3);
    if (idle !== 0) return;
    const waited = window.unziplora.polled ? Date.now() - window.unziplora.polled : 0;
    if (waited > 4000 || window.unziplora.away) checkServer();
    if (window.unziplora.away || (waited > 0 && waited < 30000)) return;
    window.unziplora.polled = Date.now();
    find('uz_poll')?.click();
  };
  // gradio 3.41 drops an upload where anything on the page is updated before it ends, and shows
  // "Uploading..." for ever: while a list is uploaded nothing is asked for, for half a minute at most.
  let holding = false, since = 0;
  const uploading = () => {
    const files = [...root().querySelectorAll('#uz_manifest tr')];
    const going = holding || files.some((file) => !file.querySelector('a[href]'));
    since = going ? since || Date.now() : 0;
    return going && Date.now() - since < 30000;
  };
  // Files that are chosen while an answer is awaited are uploaded after it, or after five seconds.
  document.addEventListener('change', (event) => {
    const input = event.composedPath()[0];
    const ours = input.type === 'file' && input.closest?.('#uz_manifest');
    if (!ours || holding || !window.unziplora.polled) return;
    event.stopImmediatePropagation();
    holding = true;
    let tries = 0;
    const again = setInterval(() => {
      if (window.unziplora.polled && ++tries < 100) return;
      clearInterval(again);
      input.dispatchEvent(new Event('change', {bubbles: true}));
      holding = false;
    }, 50);
  }, true);
  // The same for a merge that learns, on the Combine tab.
  const pollMerge = () => {
    const live = find('uz_merge_live');
    if (!seen(live) || document.hidden || !live.querySelector('[data-active]')) return;
    if (Date.now() - window.unziplora.mergePolled < 30000) return;
    window.unziplora.mergePolled = Date.now();
    find('uz_poll_merge')?.click();
  };
  // A tab's list is read where it is selected. gradio 4 may lose that in the moment after the page was
  // loaded; what is still empty after three seconds is asked for once more, and then every fourth.
  const lists = {uz_cards: 'results', uz_picks: 'combine'}, empty = {};
  const pollLists = () => {
    for (const [list, tab] of Object.entries(lists)) {
      const waits = seen(find('uz_tab_' + tab)) && !find(list)?.querySelector('.uz-quiet, .uz-cards');
      empty[list] = waits && !document.hidden ? (empty[list] ?? 0) + 1 : 0;
      if (empty[list] % 4 === 3) find('uz_list_' + tab)?.click();
    }
  };
  window.unziploraPoll = window.unziploraPoll ?? setInterval(poll, 1000);

  // gradio 3 gives a slider's number no name that a screen reader could say.
  const nameNumbers = () => {
    const unnamed = '#uz_tabs .head > input[type=number]:not([aria-label])';
    for (const number of root().querySelectorAll(unnamed)) {
      number.ariaLabel = number.parentElement.querySelector('label')?.textContent.trim();
    }
  };

  // Says it when the server no longer answers, and loads the page again when it is back: gradio's
  // own connection does not survive a restart.
  let asked = 0;
  const checkServer = async () => {
    // Automatic1111 does not start where it is asked something in the wrong moment: a request
    // builds what setup_middleware (modules/initialize_util.py:195) is about to change.
    const rest = typeof gradioApp === 'function' ? 10000 : 900;
    if (window.unziplora.away && Date.now() - asked < rest) return;
    asked = Date.now();
    let answers = true;
    try {
      await fetch(location.href, {method: 'HEAD', cache: 'no-store'});
    } catch {
      answers = false;
    }
    const away = find('uz_away');
    if (!answers) {
      window.unziplora.away = true;
      away?.classList.add('uz-shown');
    } else if (window.unziplora.away) {
      window.unziplora.away = false;
      away?.classList.remove('uz-shown');
      window.unziplora.polled = 0;
      if (typeof gradioApp === 'function') find('uz_back')?.classList.add('uz-shown');
      else location.reload();
    }
  };

  // Buttons inside HTML have their request in data-uz, the tab that answers it in data-to, and in
  // data-tab the one that they open.
  // By its id; in gradio 3, and where 6 has no room for it, by its place. Not by its text, which a
  // WebUI may translate.
  const tabs = ['Train', 'Results', 'Combine', 'Inspect'];
  const rows = '#uz_tabs > .tab-nav, #uz_tabs > .tab-wrapper :is([role=tablist], .overflow-dropdown)';
  const openTab = (name) => {
    const places = [...root().querySelectorAll(rows)].flatMap((row) => [...row.children]);
    const buttons = places.filter((one) => one.tagName === 'BUTTON');
    (find(`uz_tab_${name.toLowerCase()}-button`) ?? buttons[tabs.indexOf(name)])?.click();
  };
  // gradio drops a press of a button whose last one is not answered yet, so requests wait for each
  // other. One that waits already is not added: a double click is one press.
  const waiting = {}, patience = {}, late = {}, heard = {};
  const press = (to, request) => {
    const line = waiting[to] ??= [];
    if (!line.includes(request) && line.push(request) === 1) send(to);
  };
  const send = (to) => {
    window.unziplora.requests[to] = waiting[to][0];
    heard[to] = false;
    // an answer may be lost; drawing takes minutes
    const lost = to === 'draw' ? 900000 : 30000;
    patience[to] = setTimeout(() => {
      if (!heard[to]) late[to] = (late[to] ?? 0) + 1;
      next(to);
    }, lost);
    find('uz_ask_' + to)?.click();
  };
  const next = (to) => {
    clearTimeout(patience[to]);
    waiting[to]?.shift();
    if (waiting[to]?.length) setTimeout(send, 0, to);
  };
  // An answer that was given up may still come, before that of the request that waits now. Was it
  // lost for good, this one waits in vain: what was heard meanwhile was its own answer.
  window.unziplora.answered = (to) => {
    if (!late[to]) return next(to);
    late[to] -= 1;
    heard[to] = true;
  };
  document.addEventListener('click', (event) => {
    const path = event.composedPath();
    const button = path.find((element) => element.dataset?.uz || element.dataset?.tab);
    if (!button) return;
    if (button.dataset.uz) press(button.dataset.to, button.dataset.uz);
    if (button.dataset.tab) openTab(button.dataset.tab);
  });

  // An image pasted anywhere on the Train tab; A1111 and Forge do this themselves.
  document.addEventListener('paste', (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((f) => f.type.startsWith('image/'));
    const image = find('uz_image');
    if (typeof gradioApp === 'function' || !file || !seen(image)) return;
    image.querySelector('button[aria-label="Clear"], button[aria-label="Remove Image"]')?.click();
    setTimeout(() => {
      const input = image.querySelector('input[type=file]');
      if (!input) return;
      const chosen = new DataTransfer();
      chosen.items.add(file);
      input.files = chosen.files;
      input.dispatchEvent(new Event('change', {bubbles: true}));
    }, 100);
  });
  return [];
}
