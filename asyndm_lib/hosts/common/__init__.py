"""The common ground of AUTOMATIC1111's WebUI and its relatives: calls, prompts and previews."""
