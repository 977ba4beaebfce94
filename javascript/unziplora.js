// What only a WebUI's own page can do: fill txt2img's prompt, and show new cards on its Lora page.

// eslint-disable-next-line no-unused-vars
function unziploraToPrompt(text) {
    const box = gradioApp().querySelector('#txt2img_prompt textarea');
    box.value = box.value.trim() ? `${box.value.trim()}, ${text}` : text;
    updateInput(box);
    switch_to_txt2img();
    return [];
}

// The chosen image of txt2img's or img2img's gallery as a data URL, or '' where there is none.
// eslint-disable-next-line no-unused-vars
async function unziploraImage(tab) {
    const gallery = gradioApp().getElementById(`${tab}_gallery`);
    const image = gallery?.querySelector('.selected img') ?? gallery?.querySelector('img');
    if (!image) return '';
    const image = await (await fetch(image.src)).blob();
    return new Promise((resolve) => {
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result);
        reader.readAsDataURL(image);
    });
}

// The Lora page keeps its cards until it is asked for new ones (javascript/extraNetworks.js:463).
function unziploraNewCards() {
    for (const tab of ['txt2img', 'img2img']) {
        gradioApp().getElementById(`${tab}_lora_extra_refresh_internal`)?.click();
    }
}

onUiLoaded(() => {
    let earlier = null;
    setInterval(() => {
        const state = gradioApp().querySelector('#uz_live [data-state]')?.dataset.state ?? null;
        if (state !== earlier && ['completed', 'stopped'].includes(state)) unziploraNewCards();
        earlier = state;
    }, 1000);
});
