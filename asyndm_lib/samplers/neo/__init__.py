"""The samplers that only Forge Neo has."""
