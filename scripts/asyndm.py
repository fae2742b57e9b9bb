"""The WebUI's entry point, which only wires.

Its file name is an identity that other extensions use: keep it.
"""

import functools

import modules.scripts as scripts
from modules import script_callbacks

from asyndm_lib import hosts
from asyndm_lib.interface import accordion, api, gallery, job, marking, options, outcomes, preparation, xyz
from asyndm_lib.interface.guarding import NO_SHEET, WITHOUT, guarded

# Chosen here, not at the first use: the WebUI has this folder on its path only while it loads
# this file.
host = hosts.webui()
marking.register()
xyz.add()  # without a page its lists are made before on_before_ui
script_callbacks.on_before_ui(xyz.add)
script_callbacks.on_ui_settings(options.register)
script_callbacks.on_app_started(functools.partial(api.mount, host))


class AsynDM(scripts.Script):
    def title(self):
        return "AsynDM"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        controls, restored = accordion.build(self.elem_id)
        self.infotext_fields = restored
        self.paste_field_names = [name for _, name in restored]
        return controls

    @guarded(WITHOUT)
    def before_process(self, p, *args):
        marking.shield(p)

    @guarded(WITHOUT)
    def before_process_batch(self, p, *args, **kwargs):
        marking.unshield(p)
        job.begin_batch(p)

    @guarded(WITHOUT)
    def process_before_every_sampling(self, p, *args, **kwargs):
        preparation.prepare(host, p, args)

    @guarded("The picture is as it was made")
    def post_sample(self, p, ps, *args):
        preparation.end(p, args)

    @guarded(NO_SHEET)
    def postprocess_image(self, p, pp, *args):
        gallery.draw(p, pp.image)

    @guarded(NO_SHEET)
    def postprocess(self, p, processed, *args):
        outcomes.say(p, processed)
        gallery.show(p, processed)
