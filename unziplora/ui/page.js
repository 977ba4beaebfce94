() => {
  // A1111 and Forge render the page inside theirs, where it may be set up twice.
  if (window.unziplora) return [];
  const root = () => document.querySelector('gradio-app')?.shadowRoot ?? document;
  const find = (id) => root().querySelector('#' + id);
  const seen = (element) => element !== null && element.offsetParent !== null;
  window.unziplora = {asked: '', asking: 0};

  // Asks for news every second while a run goes on, else every third: gradio 3.41 has no timer.
  // Not again before the last answer, unless that is lost: a busy computer is slow to give it.
  let idle = 0;
  const poll = () => {
    const live = find('uz_live');
    if (!seen(live) || document.hidden) return;
    idle = live.querySelector('[data-going]') ? 0 : (idle + 1) % 3;
    if (idle !== 0 || Date.now() - window.unziplora.asking < 30000) return;
    window.unziplora.asking = Date.now();
    find('uz_poll')?.click();
  };
  window.unziploraPoll = window.unziploraPoll ?? setInterval(poll, 1000);

  // Buttons inside HTML say in data-uz what they ask for and in data-to which tab.
  document.addEventListener('click', (event) => {
    const button = event.composedPath().find((element) => element.dataset?.uz);
    if (!button) return;
    window.unziplora.asked = button.dataset.uz;
    find('uz_ask_' + button.dataset.to)?.click();
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
