"""The words of a prompt: the target list, the words' tokens, and candidates where none is named."""
