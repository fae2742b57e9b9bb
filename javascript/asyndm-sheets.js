/* A sheet in the gallery is no result: "Send to" and "Upscale" take the picture that it is about. */

(function() {
    "use strict";

    const MARK = ", AsynDM sheet: what lagged";

    /** The place in the gallery of the result that is meant where `index` is selected. */
    function resultOf(index) {
        const gallery = all_gallery_buttons()[index]?.closest("[id$=_gallery]");
        const tab = gallery?.id.replace("_gallery", "");
        const info = gradioApp().querySelector(`#generation_info_${tab} textarea`)?.value;
        if (!info) return index;
        const {infotexts = [], index_of_first_image: first = 0} = JSON.parse(info);
        const text = infotexts[index] ?? "";
        const found = text.endsWith(MARK) ? infotexts.indexOf(text.slice(0, -MARK.length), first) : -1;
        return found < 0 ? index : found;
    }

    onUiLoaded(() => {
        const extract = window.extract_image_from_gallery;
        window.extract_image_from_gallery = gallery => {
            const selected = selected_gallery_index();
            const meant = resultOf(selected);
            // A sheet is never the first: of a single picture the host takes that one, in its own form.
            return extract(meant === selected ? gallery : [gallery[meant]]);
        };

        const upscale = window.submit_txt2img_upscale;
        window.submit_txt2img_upscale = (...values) => {
            const sent = upscale(...values);
            sent[2] = resultOf(sent[2]);
            return sent;
        };
    });
})();
