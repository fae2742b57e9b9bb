/* What the canvas of the mask begins with: an empty picture in the form of the one to come, or the last result. */

(function(asyndm) {
    "use strict";

    const LONGEST = 768;  // the longer side, always, as a brush's width is in pixels

    function drawn(width, height, draw) {
        const scale = LONGEST / Math.max(width, height);
        const canvas = document.createElement("canvas");
        canvas.width = Math.max(1, Math.round(width * scale));
        canvas.height = Math.max(1, Math.round(height * scale));
        draw(canvas.getContext("2d"), canvas.width, canvas.height);
        return canvas.toDataURL("image/png");
    }

    function side(tab, name) {
        return Number(gradioApp().querySelector(`#${tab}_${name} input`)?.value) || 512;
    }

    function canvasBlank(tab) {
        return drawn(side(tab, "width"), side(tab, "height"), (context, width, height) => {
            context.fillStyle = "#808080";
            context.fillRect(0, 0, width, height);
        });
    }

    /** The result that is selected in the gallery, or the first; an empty canvas where there is none. */
    async function canvasLast(tab) {
        const images = gradioApp().querySelectorAll(`#${tab}_gallery img`);
        const picture = gradioApp().querySelector(`#${tab}_gallery .preview img`) ?? images[0];
        if (!picture) return canvasBlank(tab);
        await picture.decode();
        return drawn(picture.naturalWidth, picture.naturalHeight, (context, width, height) => {
            context.drawImage(picture, 0, 0, width, height);
        });
    }

    Object.assign(asyndm, {canvasBlank, canvasLast});
})(globalThis.asyndm ??= {});
