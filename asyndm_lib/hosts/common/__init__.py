"""What AUTOMATIC1111's WebUI and its relatives share: the samplers' calls, the prompts and the previews."""
