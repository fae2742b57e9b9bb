"""What a person or a program meets in a WebUI: the controls, the API, infotexts and messages."""
