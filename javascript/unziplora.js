// What only a WebUI's own page can do: edit txt2img's prompt, give the image of a gallery, and show
// new cards on the Lora page. docs/ui-protocol.md describes what passes between this and the tab.

const unziploraLetter = '[\\p{L}\\p{N}_]';

// A pattern for a phrase that stands on its own, with an optional pattern in front of it.
function unziploraPhrase(text, before = '') {
    const plain = text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
    return new RegExp(`(?<!${unziploraLetter})${before}${plain}(?!${unziploraLetter})`, 'gu');
}

// The prompt without what removed words leave behind: doubled commas and spaces, empty brackets.
function unziploraTidy(prompt) {
    return prompt
        .replace(/\(\s*(:\s*[\d.]+\s*)?\)/g, '')
        .replace(/[ \t]+/g, ' ')
        .replace(/ ?,(\s*,)+/g, ',')
        .replace(/ +,/g, ',')
        .replace(/^[\s,]+|[\s,]+$/g, '');
}

function unziploraAppend(prompt, words) {
    return prompt.trim() ? `${unziploraTidy(prompt)}, ${words}` : words;
}

// The prompt with the first match of a pattern replaced.
function unziploraFirst(prompt, pattern, replacement) {
    return prompt.replace(new RegExp(pattern.source, 'u'), replacement);
}

// The words of a pair in a prompt. wanted, called: of each role, whether the pair's LoRA will be
// called, and whether it was. Words are only taken out where this pair put them in.
function unziploraWords(prompt, pair, wanted, called) {
    const phrase = (lora, before) => lora?.trigger ? unziploraPhrase(lora.trigger, before) : /(?!)/gu;
    const subject = phrase(pair.content, '(?:(?:an?|the)\\s+)?');
    const style = phrase(pair.style, '(?:in\\s+)?');
    const image = unziploraPhrase('an image');
    const has = (pattern) => prompt.search(pattern) >= 0;
    if (called.content && !wanted.content) {
        prompt = prompt.replace(subject, wanted.style ? 'an image' : '');
    }
    if (called.style && !wanted.style) {
        prompt = prompt.replace(style, '');
        if (!wanted.content) prompt = prompt.replace(image, '');
    }
    if (wanted.content && pair.content.trigger && !has(subject)) {
        const words = `a ${pair.content.trigger}`;
        const free = called.style && has(image);
        prompt = free ? unziploraFirst(prompt, image, () => words) : unziploraAppend(prompt, words);
    }
    if (wanted.style && !has(style)) {
        const words = `in ${pair.style.trigger}`;
        const noun = [wanted.content && subject, called.content && image].find((p) => p && has(p));
        if (noun) prompt = unziploraFirst(prompt, noun, (found) => `${found} ${words}`);
        else prompt = unziploraAppend(prompt, prompt.trim() ? words : `an image ${words}`);
    }
    return unziploraTidy(prompt);
}

// A prompt with a pair's calls and trigger words as asked for, in place of those that were there.
// pair: {content: {name, trigger, weight}, style: {...}, toggle}; a weight of 0 leaves one out; a
// merged file is a content without a style.
// toggle: where the prompt has exactly these calls already, they are taken out.
// eslint-disable-next-line no-unused-vars
function unziploraEdit(prompt, pair) {
    const roles = ['content', 'style'].filter((role) => pair[role]);
    const calls = [...prompt.matchAll(/<lora:([^:>]+)(?::([^>]*))?>/g)];
    const own = (role) => calls.filter((call) => call[1] === pair[role].name);
    const same = roles.every((role) => {
        const found = own(role).map((call) => Number(call[2] ?? 1));
        return pair[role].weight ? found.length === 1 && found[0] === pair[role].weight : !found.length;
    });
    const each = (value) => Object.fromEntries(roles.map((role) => [role, value(role)]));
    const remove = pair.toggle && same;
    const wanted = each((role) => !remove && pair[role].weight !== 0);
    const called = each((role) => own(role).length > 0);
    for (const call of roles.flatMap(own)) prompt = prompt.replace(call[0], '');
    const words = unziploraWords(prompt, pair, wanted, called);
    const added = roles.filter((role) => wanted[role])
        .map((role) => `<lora:${pair[role].name}:${pair[role].weight}>`);
    return [words, ...added].filter(Boolean).join(' ');
}

// Takes a pair, as JSON, into txt2img's prompt.
// eslint-disable-next-line no-unused-vars
function unziploraToPrompt(text) {
    if (!text) return [];
    const box = gradioApp().querySelector('#txt2img_prompt textarea');
    box.value = unziploraEdit(box.value, JSON.parse(text));
    updateInput(box);
    switch_to_txt2img();
    return [];
}

// The chosen image of txt2img's or img2img's gallery as a data URL, or '' where there is none.
// eslint-disable-next-line no-unused-vars
async function unziploraImage(tab) {
    const gallery = gradioApp().getElementById(`${tab}_gallery`);
    const shown = gallery?.querySelector('.selected img') ?? gallery?.querySelector('img');
    if (!shown) return '';
    const data = await (await fetch(shown.src)).blob();
    return new Promise((resolve) => {
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result);
        reader.readAsDataURL(data);
    });
}

// txt2img's settings, in the order of the fields of previews (ui/advanced_fields.py), without the
// prompt's LoRAs: a preview shows the ones that are trained. The schedule type stands behind the
// sampler, where one is chosen: "DPM++ 2M Karras".
// eslint-disable-next-line no-unused-vars
function unziploraPreviewSettings() {
    const value = (field) => {
        const box = gradioApp().querySelector(`#txt2img_${field} :is(textarea, input)`);
        return (box?.value ?? '').replace(/\s*<lora:[^>]*>/g, '');
    };
    const schedule = value('scheduler');
    const sampler = [value('sampling'), schedule === 'Automatic' ? '' : schedule];
    return [value('prompt'), value('neg_prompt'), value('steps'), sampler.filter(Boolean).join(' '),
            value('cfg_scale'), value('width'), value('height')];
}

// Opens a tab by the id of its panel: a translated WebUI has another text on its button. gradio 3
// gives the button no id, but has the buttons in the panels' order.
function unziploraOpen(id) {
    const panel = gradioApp().getElementById(id);
    const panels = [...panel?.parentElement.children ?? []].filter((one) => one.matches('.tabitem'));
    const buttons = panel?.parentElement.querySelectorAll(':scope > .tab-nav > button');
    (gradioApp().getElementById(`${id}-button`) ?? buttons?.[panels.indexOf(panel)])?.click();
}

// A button below txt2img's and img2img's galleries that takes the chosen image to the Train tab.
function unziploraGalleryButton(tab) {
    const row = gradioApp().querySelector(`#image_buttons_${tab}`);
    const other = row?.querySelector('button');
    const fetchIt = gradioApp().getElementById(`uz_from_${tab}`);
    if (!other || !fetchIt || row.querySelector('.unziplora-send')) return;
    const button = other.cloneNode(false);  // its look, without its id and what it does
    button.id = `unziplora_send_${tab}`;
    button.classList.add('unziplora-send');
    button.disabled = false;
    button.textContent = '🧩';
    button.title = 'Train content and style LoRAs on this image (UnZipLoRA).';
    button.onclick = () => {
        unziploraOpen('tab_unziplora');
        unziploraOpen('uz_tab_train');
        fetchIt.click();
    };
    row.append(button);
}

// The Lora page keeps its cards until it is asked for new ones (javascript/extraNetworks.js:463).
function unziploraNewCards() {
    for (const tab of ['txt2img', 'img2img']) {
        gradioApp().getElementById(`${tab}_lora_extra_refresh_internal`)?.click();
    }
}

onUiLoaded(() => {
    for (const tab of ['txt2img', 'img2img']) unziploraGalleryButton(tab);
    let earlier = null, waiting = false;
    setInterval(() => {
        const state = gradioApp().querySelector('#uz_live [data-state]')?.dataset.state ?? null;
        if (state !== earlier && ['completed', 'stopped'].includes(state)) waiting = true;
        // The Lora page reads the loaded checkpoint, which may be changing after a run.
        else if (waiting && gradioApp().querySelector('#uz_model [data-loaded]')) {
            waiting = false;
            unziploraNewCards();
        }
        earlier = state;
    }, 1000);
});
