"""The WebUI's entry point: it only wires. Its file name is an identity that other extensions use; keep it."""

import modules.scripts as scripts

from asyndm_lib import hosts
from asyndm_lib.errors import AsynDMError
from asyndm_lib.interface import accordion, arguments, infotext, messages

# Chosen here, not at the first use: the WebUI has this folder on its path only while it loads this file.
host = hosts.webui()


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

    def process_before_every_sampling(self, p, *args, **kwargs):
        host.detach(p.sampler)
        if not getattr(p, "is_hr_pass", False):
            infotext.erase(p.extra_generation_params)

        def report(text):
            messages.report(p, text)

        def refused(error):
            infotext.erase(p.extra_generation_params)
            report(f"{error}. The picture was made without AsynDM")

        try:
            settings = arguments.read(args)
            if settings is None:
                return
            targets = None if settings.whole_picture else host.prompt_targets(p, settings)
            if targets is not None and not self._anything_to_do(targets, report):
                return
            host.attach(p, settings, targets, report, refused)
        except AsynDMError as error:
            refused(error)
            return
        p.extra_generation_params.update(infotext.write(settings))

    def postprocess(self, p, processed, *args):
        messages.into_info(p, processed)

    @staticmethod
    def _anything_to_do(targets, report):
        if not targets.targets:
            report("no target words are named. The picture was made without AsynDM")
            return False
        missing = targets.missing()
        names = ", ".join(f'"{target!s:.80}"' for target in missing)
        if len(missing) == len(targets.targets):
            report(f"{names} not found in the prompt. The picture was made without AsynDM")
            return False
        if missing:
            report(f"{names} not found in the prompt; the other targets were used")
        return True
