"""The settings of the method: their names, ranges and defaults, as presets and as a JSON schema."""
