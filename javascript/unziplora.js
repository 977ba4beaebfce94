// Looks at a run once a second while its tab is seen, and fills txt2img's prompt.

onUiLoaded(() => {
    if (window.unziploraPoll) return;
    window.unziploraPoll = setInterval(() => {
        const button = gradioApp().querySelector('#uz_poll');
        const live = gradioApp().querySelector('#uz_live');
        if (button && live && live.offsetParent !== null) button.click();
    }, 1000);
});

// eslint-disable-next-line no-unused-vars
function unziploraToPrompt(text) {
    const box = gradioApp().querySelector('#txt2img_prompt textarea');
    box.value = box.value.trim() ? `${box.value.trim()}, ${text}` : text;
    updateInput(box);
    switch_to_txt2img();
    return [];
}
